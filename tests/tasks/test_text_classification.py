"""Labels in, labels out, and their metrics against scikit-learn's."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from tokenizers import Tokenizer

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks.text_classification import TextClassification

TASK = TextClassification()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("bert", tmp_path_factory.mktemp("model") / "bert", "text-classification")


def _scored(gold: list[Any], predicted: list[Any], **options: Any) -> Any:
    rows = [{"id": str(i), "text": "", "label": label} for i, label in enumerate(gold)]
    said = {str(i): {"id": str(i), "label": label} for i, label in enumerate(predicted) if label is not None}
    return TextClassification(**options).score(rows, said)


@pytest.mark.parametrize("kinds", [2, 4])
def test_metrics_equal_scikit_learn_s(kinds: int) -> None:
    rng = random.Random(kinds)
    gold = [rng.randrange(kinds) for _ in range(60)]
    predicted = [g if rng.random() < 0.7 else rng.randrange(kinds) for g in gold]
    assert _scored(gold, predicted).metrics == pytest.approx(
        {
            "accuracy": accuracy_score(gold, predicted),
            "f1": f1_score(gold, predicted, average="macro"),
            "matthews": matthews_corrcoef(gold, predicted),
        }
    )
    for positive in range(kinds):
        binary = _scored(gold, predicted, average="binary", positive=positive).metrics["f1"]
        flags = [[label == positive for label in labels] for labels in (gold, predicted)]
        assert binary == pytest.approx(f1_score(*flags))


def test_metrics_by_hand() -> None:
    found = _scored([1, 1, 1, 0], [1, 1, 0, 0], average="binary")
    assert found.metrics == pytest.approx({"accuracy": 0.75, "f1": 0.8, "matthews": 4 / math.sqrt(48)})
    assert found.rows[2] == {"id": "2", "gold": 1, "predicted": 0, "accuracy": 0.0, "outcome": "fn"}


def test_one_answer_for_everything_correlates_with_nothing() -> None:
    assert _scored([0, 1, 1], [1, 1, 1]).metrics["matthews"] == 0
    assert _scored([0, 0], [0, 0], average="binary").metrics["f1"] == 0


def test_missing_and_nan_are_wrong_and_counted() -> None:
    rows = [{"id": str(i), "text": "", "label": 1} for i in range(4)]
    said: dict[str, Any] = {
        "0": {"id": "0", "label": 1},
        "1": {"id": "1", "label": None, "nan": True},
        "x": {"id": "x"},
    }
    found = TASK.score(rows, said)
    assert found.metrics["accuracy"] == 0.25
    assert found.metrics["f1"] == pytest.approx(2 / 5)  # one hit, three misses, and no label None to average with
    assert found.counts == {"rows": 4, "missing": 2, "unknown": 1, "nan": 1}


def test_names_are_compared_with_names() -> None:
    rows = [{"id": "a", "text": "", "label": "bad"}, {"id": "b", "text": "", "label": "good"}]
    said = {"a": {"id": "a", "label": 0, "name": "bad"}, "b": {"id": "b", "label": 1, "name": "good"}}
    assert TextClassification(average="binary").score(rows, said).metrics == {"accuracy": 1, "f1": 1, "matthews": 1}
    assert TextClassification(average="binary", positive="bad").score(rows[:1], said).metrics["f1"] == 1
    assert TextClassification(average="binary", positive="good").score(rows[:1], said).metrics["f1"] == 0
    only = {"a": {"id": "a", "label": "bad"}, "b": {"id": "b", "label": "bad"}}
    assert TASK.score(rows, only).metrics["accuracy"] == 0.5
    numbered = [{**row, "label": i} for i, row in enumerate(rows)]
    assert TextClassification(average="binary", positive="good").score(numbered, said).metrics["f1"] == 1


def test_labels_map_the_data_s_numbers_to_names() -> None:
    task = TextClassification(labels=("good", "bad"), average="binary", positive=0)
    rows = [task.row({"id": "a", "text": "", "label": 1}), task.row({"id": "b", "text": "", "label": 0})]
    assert [row["label"] for row in rows] == ["bad", "good"]
    said = {"a": {"id": "a", "label": 0, "name": "bad"}, "b": {"id": "b", "label": 1, "name": "good"}}
    assert task.score(rows, said).metrics == {"accuracy": 1, "f1": 1, "matthews": 1}
    assert [row["outcome"] for row in task.score(rows, said).rows] == ["tn", "tp"]


def test_kinds_that_differ_are_an_error() -> None:
    rows = [{"id": "a", "text": "", "label": 1}]
    with pytest.raises(RecipeError, match="prediction a: labels are names, those of the rows numbers"):
        TASK.score(rows, {"a": {"id": "a", "label": "good"}})
    with pytest.raises(RecipeError, match="row a: no `label`"):
        TASK.score([{"id": "a", "text": ""}], {})


def test_rows_are_checked() -> None:
    assert TASK.row({"id": 1, "text": "a", "label": 0, "idx": 3}) == {"id": "1", "text": "a", "label": 0}
    assert TASK.row({"text": "a", "text_pair": "b"}) == {"text": "a", "text_pair": "b"}
    for wrong, says in [
        ({"text": None}, "`text` is missing"),
        ({"text_pair": 1}, "`text_pair` is int"),
        ({"label": -1}, "not labelled"),
        ({"label": -1.0}, "not labelled, or a regression"),
        ({"label": {}}, "`label` is dict"),
        ({"label": math.nan}, "`label` is float"),
        ({"label": ["a", None]}, "`label` has None"),
        ({"label": [0.5]}, "entries are names, numbers from 0"),
    ]:
        with pytest.raises(ValueError, match=says):
            TASK.row({"text": "a", "label": 0, **wrong})
    with pytest.raises(ValueError, match="`labels` are 1"):
        TextClassification(labels=("good",)).row({"text": "a", "label": 1})


def test_sentences_and_pairs_are_tokenised_and_cut(model: Path) -> None:
    rows = [{"id": "a", "text": "anna won"}, {"id": "b", "text": "red " * 20, "text_pair": "blue"}]
    one, two = TextClassification(max_seq_length=12).encode(rows, model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert one.inputs["input_ids"] == tokenizer.encode("anna won").ids
    assert (one.row, two.row) == (0, 1)
    # The longer sentence alone is cut: [CLS] 8 x red [SEP] blue [SEP]
    assert two.inputs["input_ids"] == tokenizer.encode("red " * 8, "blue").ids
    assert two.inputs["token_type_ids"] == [0] * 10 + [1] * 2


def test_labels_the_model_lacks_are_refused_before_anything_runs(model: Path) -> None:
    with pytest.raises(RecipeError, match="row a: label 'NEUTRAL' is not one of the model's: NEGATIVE, POSITIVE"):
        TASK.encode([{"id": "a", "text": "x", "label": "NEUTRAL"}], model)
    with pytest.raises(RecipeError, match="row a: label 2, but the model has 2 labels, 0 to 1: NEGATIVE, POSITIVE"):
        TASK.encode([{"id": "a", "text": "x", "label": 2}], model)


def test_the_largest_logit_wins(model: Path) -> None:
    rows = [{"id": name, "text": "anna"} for name in "abcd"]
    features = TASK.encode(rows, model)
    logits = [[0.0, math.log(3)], [2.0, 2.0], [math.nan, 1.0], [1.0, math.inf]]
    outputs = [{"logits": np.float32(one)} for one in logits]
    assert TASK.decode(rows, features, outputs, model) == [
        {"id": "a", "label": 1, "name": "POSITIVE", "score": 0.75},
        {"id": "b", "label": 0, "name": "NEGATIVE", "score": 0.5},
        {"id": "c", "label": None, "name": None, "nan": True},
        {"id": "d", "label": None, "name": None, "nan": True},
    ]


def test_no_rows_score_nan() -> None:
    assert all(math.isnan(value) for value in TASK.score([], {}).metrics.values())
