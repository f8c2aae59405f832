"""Words and their tags, scored by whole entities against seqeval's own figures."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import TAGS, make
from seqeval import metrics as seqeval
from tokenizers import Tokenizer

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks.token_classification import TokenClassification

TASK = TokenClassification()


@pytest.fixture(scope="module", params=["bert", "roberta"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp("model") / request.param, "token-classification")


def _score(gold: list[list[str]], predicted: list[list[str]]) -> Any:
    rows = [{"id": str(i), "tokens": ["x"] * len(tags), "tags": tags} for i, tags in enumerate(gold)]
    return TASK.score(rows, {str(i): {"id": str(i), "tags": tags} for i, tags in enumerate(predicted)})


def test_whole_entities_count() -> None:
    found = _score([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]])
    assert found.metrics == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}
    found = _score([["B-PER", "O"]], [["B-LOC", "B-PER"]])  # the right place with the wrong type is wrong
    assert (found.metrics["f1"], found.metrics["accuracy"]) == (0, 0)


def test_metrics_equal_seqeval_s() -> None:
    rng = random.Random(0)
    gold = [[rng.choice(TAGS) for _ in range(rng.randint(1, 9))] for _ in range(40)]
    predicted = [[tag if rng.random() < 0.8 else rng.choice(TAGS) for tag in tags] for tags in gold]
    expected = {
        "f1": seqeval.f1_score(gold, predicted),
        "precision": seqeval.precision_score(gold, predicted),
        "recall": seqeval.recall_score(gold, predicted),
        "accuracy": seqeval.accuracy_score(gold, predicted),
    }
    found = _score(gold, predicted)
    assert found.metrics == pytest.approx(expected)
    some = [3, 3, 8, 20]
    again = seqeval.f1_score([gold[i] for i in some], [predicted[i] for i in some])
    assert TASK.aggregate([found.rows[i] for i in some], "f1") == pytest.approx(again)


def test_missing_rows_are_all_outside_and_counted() -> None:
    rows = [{"id": "a", "tokens": ["x", "y"], "tags": ["B-PER", "O"]}, {"id": "b", "tokens": ["x"], "tags": ["B-PER"]}]
    found = TASK.score(rows, {"b": {"id": "b", "tags": ["B-PER"], "cut": 3}, "z": {"id": "z"}})
    assert found.metrics["recall"] == 0.5
    assert found.counts == {"rows": 2, "missing": 1, "unknown": 1, "nan": 0, "cut": 3}


def test_predictions_of_another_length_are_an_error() -> None:
    with pytest.raises(RecipeError, match="prediction 0: `tags` must be a list of 2"):
        _score([["O", "O"]], [["O"]])
    with pytest.raises(RecipeError, match="row a: no `tags`"):
        TASK.score([{"id": "a", "tokens": []}], {})


def test_rows_are_checked() -> None:
    named = TokenClassification(labels=("O", "B-PER"))
    assert named.row({"id": 1, "tokens": ["a", "b"], "tags": [1, 0]})["tags"] == ["B-PER", "O"]
    assert TASK.row({"tokens": ["a"], "tags": ["B-PER"], "pos": [3]}) == {"tokens": ["a"], "tags": ["B-PER"]}
    assert "tags" not in TASK.row({"tokens": ["a"]})
    for task, wrong, says in [
        (TASK, {"tokens": "a b"}, "`tokens` must be a list of words"),
        (TASK, {"tokens": ["a", None]}, "`tokens` must be a list of words"),
        (TASK, {"tags": ["O", "O"]}, "a list of 1"),
        (TASK, {"tags": [-100]}, "not a number from 0"),
        (TASK, {"tags": [None]}, "a tag is NoneType"),
        (named, {"tags": [2]}, "tag 2 has no name"),
    ]:
        with pytest.raises(ValueError, match=says):
            task.row({"tokens": ["a"], **wrong})


WORDS = ["anna", "built", "unheardof", "in", "paris"]


def test_the_first_token_of_each_word_is_its_place(model: Path) -> None:
    [feature] = TASK.encode([{"id": "a", "tokens": WORDS}], model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    starts = [tokenizer.id_to_token(feature.inputs["input_ids"][place]) for place in feature.extra]
    assert not any(token.startswith("##") for token in starts)
    assert list(feature.extra) == sorted(set(feature.extra.tolist()))
    if "roberta" in model.name:  # pre-split words are seen as in running text, with their space
        assert all(token.startswith("\u0120") for token in starts)


def test_words_beyond_the_length_are_outside_and_counted(model: Path) -> None:
    rows = [{"id": "a", "tokens": WORDS * 5}]
    features = TokenClassification(max_seq_length=12).encode(rows, model)
    assert len(features[0].inputs["input_ids"]) == 12
    [prediction] = TASK.decode(rows, features, [{"logits": _one_hot(12, 1)}], model)
    kept = 25 - prediction["cut"]
    assert 0 < kept < 11
    assert prediction["tags"] == ["B-PER"] * kept + ["O"] * prediction["cut"]


def test_a_word_without_tokens_is_outside(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert", "token-classification")
    rows = [{"id": "a", "tokens": ["anna", "", "paris"]}]
    features = TASK.encode(rows, model)
    [prediction] = TASK.decode(rows, features, [{"logits": _one_hot(4, 3)}], model)
    assert prediction["tags"] == ["B-LOC", "O", "B-LOC"]


def test_tags_come_from_first_tokens_alone(model: Path) -> None:
    rows = [{"id": "a", "tokens": WORDS}]
    features = TASK.encode(rows, model)
    logits = _one_hot(len(features[0].inputs["input_ids"]), 4)
    for place, tag in zip(features[0].extra, (1, 0, 3, 0, 2), strict=True):
        logits[place] = np.eye(len(TAGS))[tag]
    [prediction] = TASK.decode(rows, features, [{"logits": logits}], model)
    assert prediction == {"id": "a", "tags": ["B-PER", "O", "B-LOC", "O", "I-PER"], "cut": 0}
    logits[0, 0] = math.nan
    [prediction] = TASK.decode(rows, features, [{"logits": logits}], model)
    assert prediction == {"id": "a", "tags": ["O"] * 5, "cut": 0, "nan": True}
    assert TASK.score([{**rows[0], "tags": ["O"] * 5}], {"a": prediction}).counts["nan"] == 1


def test_tags_of_another_scheme_are_refused_before_anything_runs(model: Path) -> None:
    with pytest.raises(RecipeError, match="share nothing"):
        TASK.encode([{"id": "a", "tokens": ["anna"], "tags": ["PERSON"]}], model)
    assert TASK.encode([{"id": "a", "tokens": ["anna", "x"], "tags": ["B-PER", "B-MISC"]}], model)
    assert TASK.encode([{"id": "a", "tokens": ["anna"], "tags": ["O"]}], model)


def test_no_rows_score_nan() -> None:
    assert all(math.isnan(value) for value in TASK.score([], {}).metrics.values())


def _one_hot(length: int, tag: int) -> Any:
    return np.tile(np.eye(len(TAGS), dtype=np.float32)[tag], (length, 1))
