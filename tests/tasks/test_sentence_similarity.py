"""Encoding sentences after their prompts, comparing their embeddings, and correlating that with gold scores."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from scipy import stats

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity

TASK = SentenceSimilarity()
VECTORS = np.float32([[1, 8], [3, 2], [5, 2]])


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("minilm", tmp_path_factory.mktemp("model") / "minilm", "sentence-similarity")


@pytest.fixture
def model(_made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_made, tmp_path / "model"))


def _pooled_by(model: Path, config: dict[str, Any]) -> None:
    (model / "1_Pooling" / "config.json").write_text(json.dumps(config))


def _settings(model: Path, **said: Any) -> None:
    (model / "config_sentence_transformers.json").write_text(json.dumps(said))


def test_each_sentence_is_a_feature_of_the_checkpoint_s_length(model: Path) -> None:
    rows = [
        {"id": "a", "sentence1": "red house", "sentence2": "blue"},
        {"id": "b", "sentence1": "x", "sentence2": "y " * 600},
    ]
    features = TASK.encode(rows, model)
    assert [f.row for f in features] == [0, 0, 1, 1]
    assert [len(f.inputs["input_ids"]) for f in features] == [4, 3, 3, 256]
    assert len(SentenceSimilarity(max_seq_length=20).encode(rows, model)[3].inputs["input_ids"]) == 20
    (model / "modules.json").unlink()  # then sentence_bert_config.json is not read, and the tokenizer's limit counts
    assert len(TASK.encode(rows, model)[3].inputs["input_ids"]) == 512
    with pytest.raises(RecipeError, match="has 512 positions"):
        SentenceSimilarity(max_seq_length=600).encode(rows, model)


def test_cosines_are_of_the_pooled_vectors(model: Path) -> None:
    rows = [{"id": name, "sentence1": "red", "sentence2": "blue"} for name in "abc"]
    features = TASK.encode(rows, model)
    one, other, zero = VECTORS, np.float32([[4, -3], [4, -3]]), np.zeros((2, 2), np.float32)
    sides = [one, other, one, one, one, zero]
    found = TASK.decode(rows, features, [{"last_hidden_state": side} for side in sides], model)
    assert [row["cosine"] for row in found] == pytest.approx([0, 1, 0], abs=1e-12)
    sides[2] = np.float32([[1, math.nan], [1, 1]])
    sides[5] = np.float32([[1, math.inf], [1, 1]])
    found = TASK.decode(rows, features, [{"last_hidden_state": side} for side in sides], model)
    assert found[1:] == [{"id": "b", "cosine": None, "nan": True}, {"id": "c", "cosine": None, "nan": True}]


@pytest.mark.parametrize(
    ("name", "expected"), [("cosine", 18 / (3 * 52**0.5)), ("dot", 18.0), ("euclidean", -5.0), ("manhattan", -7.0)]
)
def test_vectors_are_compared_as_the_model_or_the_recipe_says(model: Path, name: Any, expected: float) -> None:
    (model / "modules.json").write_text(
        (model / "modules.json").read_text().replace("models.Normalize", "models.Dropout")
    )
    rows = [{"id": "a", "sentence1": "red", "sentence2": "blue"}]
    sides = [{"last_hidden_state": np.float32([[3, 0]])}, {"last_hidden_state": np.float32([[6, 4], [6, 4]])}]
    for task in (SentenceSimilarity(similarity=name), TASK):
        [said] = task.decode(rows, task.encode(rows, model), sides, model)
        assert said == {"id": "a", name: pytest.approx(expected)}
        scored = task.score([{**rows[0], "score": 1.0}], {"a": said})
        assert scored.rows == [{"id": "a", "gold": 1.0, "similarity": said[name]}]
        _settings(model, similarity_fn_name=name)


PROMPTS = {"query": "red house ", "passage": "blue "}


def _ids(task: SentenceSimilarity, model: Path, text: str = "river") -> list[list[int]]:
    features = task.encode([{"id": "a", "sentence1": text, "sentence2": text}], model)
    return [list(feature.inputs["input_ids"]) for feature in features]


def test_a_prompt_goes_before_each_sentence(model: Path) -> None:
    plain, query, passage, own = (_ids(TASK, model, f"{text}river")[0] for text in ("", "red house ", "blue ", "old "))
    _settings(model, prompts=PROMPTS)
    assert _ids(TASK, model) == [plain, plain]
    _settings(model, prompts=PROMPTS, default_prompt_name="query")
    assert _ids(TASK, model) == [query, query]
    assert _ids(SentenceSimilarity(prompt="passage"), model) == [passage, passage]
    assert _ids(SentenceSimilarity(prompt={"text": "old "}), model) == [own, own]
    assert _ids(SentenceSimilarity(prompts={"sentence2": "passage"}), model) == [query, passage]
    sides: Any = {"sentence1": {"text": ""}, "sentence2": "passage"}
    assert _ids(SentenceSimilarity(prompt="query", prompts=sides), model) == [plain, passage]
    assert _ids(SentenceSimilarity(prompt="document"), model) == [plain, plain]  # as `encode_document` without one


def test_a_prompt_that_the_model_has_not_is_told_with_those_it_has(model: Path) -> None:
    _settings(model, prompts=PROMPTS)
    says = r"no prompt 'question'; it has query, document, passage; write a text of your own as `\{text: \.\.\.\}`"
    for task in (SentenceSimilarity(prompt="question"), SentenceSimilarity(prompts={"sentence2": "question"})):
        with pytest.raises(RecipeError, match=says):
            task.check_model(model)
        with pytest.raises(RecipeError, match=says):
            task.encode([], model)


def test_a_prompt_can_be_left_out_of_the_embedding(model: Path) -> None:
    _settings(model, prompts=PROMPTS, default_prompt_name="query")
    rows = [{"id": "a", "sentence1": "river", "sentence2": "river"}]
    task = SentenceSimilarity(prompts={"sentence2": {"text": ""}})
    assert [feature.extra for feature in task.encode(rows, model)] == [0, 0]
    _pooled_by(model, {"pooling_mode": "mean", "include_prompt": False})
    features = task.encode(rows, model)
    assert [feature.extra for feature in features] == [3, 0]  # [CLS] red house, without the [SEP] that ends any text
    vectors = np.float32([[9, 9], [9, 9], [9, 9], [3, 0], [0, 4]])
    sides = [{"last_hidden_state": vectors}, {"last_hidden_state": vectors[3:]}]
    [said] = task.decode(rows, features, sides, model)
    assert said["cosine"] == pytest.approx(1)


def test_a_sentence_without_tokens_is_refused_by_name(model: Path) -> None:
    file = model / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    rows = [{"id": name, "sentence1": "red", "sentence2": text} for name, text in (("a", "blue"), ("b", " "))]
    with pytest.raises(RecipeError, match="row b: the tokenizer makes no token of `sentence2`, ' '"):
        TASK.encode(rows, model)
    assert len(SentenceSimilarity(prompt={"text": "red "}).encode(rows, model)) == 4


def test_a_lowered_text_keeps_its_special_tokens(model: Path) -> None:
    file = model / "tokenizer.json"
    said = json.loads(file.read_text())
    said["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(said))
    cased, lower, special = (_ids(TASK, model, text)[0] for text in ("RED", "red", "red [SEP] red"))
    assert cased != lower
    (model / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert _ids(TASK, model, "RED")[0] == lower
    assert _ids(TASK, model, "RED [SEP] Red")[0] == special


def _scored(gold: list[float], cosines: list[float | None]) -> Any:
    rows = [{"id": str(i), "sentence1": "", "sentence2": "", "score": score} for i, score in enumerate(gold)]
    said = {str(i): {"id": str(i), "cosine": c, "nan": c is None} for i, c in enumerate(cosines)}
    return TASK.score(rows, said)


def test_correlations_equal_scipy_s() -> None:
    rng = random.Random(0)
    gold = [float(rng.randrange(6)) for _ in range(50)]  # with ties
    cosines = [g / 5 + rng.gauss(0, 0.3) for g in gold]
    found = _scored(gold, cosines)
    expected = {"spearman": stats.spearmanr(gold, cosines)[0], "pearson": stats.pearsonr(gold, cosines)[0]}
    assert found.metrics == pytest.approx(expected)
    assert found.rows[0] == {"id": "0", "gold": gold[0], "similarity": cosines[0]}


def test_correlations_by_hand() -> None:
    found = _scored([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.9])
    assert found.metrics["spearman"] == pytest.approx(0.8)  # 1 - 6*2/(4*15)
    assert found.metrics["pearson"] == pytest.approx(1.15 / math.sqrt(5 * 0.3875))


def test_what_never_varies_correlates_with_nothing() -> None:
    # 0.1, because the mean of three of them is another number, and rounding would correlate.
    assert all(math.isnan(value) for value in _scored([1, 2, 3], [0.1, 0.1, 0.1]).metrics.values())
    assert all(math.isnan(value) for value in _scored([2, 2, 2], [0.1, 0.2, 0.3]).metrics.values())
    assert math.isnan(_scored([1], [0.5]).metrics["pearson"])
    assert math.isnan(TASK.score([], {}).metrics["spearman"])


def test_rows_without_a_cosine_are_left_out_and_counted() -> None:
    found = _scored([1, 2, 3, 4, 0], [0.1, 0.2, None, 0.3])
    assert found.metrics["spearman"] == pytest.approx(1)
    assert found.counts == {"rows": 5, "missing": 1, "unknown": 0, "nan": 1}


def test_bad_cosines_and_unlabelled_rows_are_errors() -> None:
    with pytest.raises(RecipeError, match="prediction 0: `cosine` is 'x'"):
        _scored([1], ["x"])  # type: ignore[list-item]
    with pytest.raises(RecipeError, match="row a: no `score`"):
        TASK.score([{"id": "a", "sentence1": "", "sentence2": ""}], {})


def test_rows_are_checked() -> None:
    raw = {"id": 1, "sentence1": "a", "sentence2": "b", "score": 3, "genre": "x"}
    assert TASK.row(raw) == {"id": "1", "sentence1": "a", "sentence2": "b", "score": 3.0}
    assert "score" not in TASK.row({**raw, "score": None})
    for wrong, says in [
        ({"sentence2": None}, "`sentence2` is missing"),
        ({"score": "3"}, "not a finite number"),
        ({"score": True}, "not a finite number"),
        ({"score": math.nan}, "not a finite number"),
    ]:
        with pytest.raises(ValueError, match=says):
            TASK.row({**raw, **wrong})
