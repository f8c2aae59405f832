"""Pooling as the checkpoint says, cosines, and their correlation with gold scores."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from scipy import stats

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.tasks import _pooling
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity

TASK = SentenceSimilarity()
VECTORS = np.float32([[1, 8], [3, 2], [5, 2]])


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("minilm", tmp_path_factory.mktemp("model") / "minilm", "sentence-similarity")


@pytest.fixture
def model(_made: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json"):
        (tmp_path / name).write_bytes((_made / name).read_bytes())
    _pooled_by(tmp_path, {"pooling_mode_mean_tokens": True, "word_embedding_dimension": 2})
    return tmp_path


def _pooled_by(model: Path, config: dict[str, Any]) -> None:
    (model / "1_Pooling").mkdir(exist_ok=True)
    (model / "1_Pooling" / "config.json").write_text(json.dumps(config))


def _modules(model: Path, *kinds: str, package: str = "sentence_transformers.models") -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    said = [{"idx": i, "path": paths.get(kind, "x"), "type": f"{package}.{kind}"} for i, kind in enumerate(kinds)]
    (model / "modules.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean_tokens", [3, 4]),
        ("cls_token", [1, 8]),
        ("max_tokens", [5, 8]),
        ("mean_sqrt_len_tokens", [9 / 3**0.5, 12 / 3**0.5]),
        ("weightedmean_tokens", [22 / 6, 18 / 6]),
        ("lasttoken", [5, 2]),
    ],
)
def test_the_checkpoint_s_pooling_is_used(model: Path, mode: str, expected: list[float]) -> None:
    flags = {"pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True, "include_prompt": True}
    _pooled_by(model, flags)
    _modules(model, "Transformer", "Pooling")
    assert _pooling.read(model)(VECTORS).tolist() == pytest.approx(expected)
    _modules(model, "Transformer", "Pooling", "Normalize")
    assert _pooling.read(model)(VECTORS).tolist() == pytest.approx(
        (np.array(expected) / np.linalg.norm(expected)).tolist()
    )


def test_newer_files_name_the_mode(model: Path) -> None:
    _pooled_by(model, {"pooling_mode": "cls"})
    _modules(model, "Transformer", "Pooling", package="sentence_transformers.base.modules")
    assert _pooling.read(model)(VECTORS).tolist() == [1, 8]


def test_several_modes_are_joined(model: Path) -> None:
    _pooled_by(model, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True})
    _modules(model, "Transformer", "Pooling")
    assert _pooling.read(model)(VECTORS).tolist() == [1, 8, 3, 4]


def test_without_modules_the_mean_is_taken_and_not_normalised(model: Path) -> None:
    (model / "modules.json").unlink()
    assert _pooling.read(model) == _pooling.Pooling(("mean",), False, None, False)
    assert _pooling.read(model)(VECTORS).tolist() == [3, 4]


def test_what_is_not_built_here_is_a_clear_failure(model: Path) -> None:
    _modules(model, "Transformer", "Pooling", "Dense")
    with pytest.raises(StageFailed, match="a Dense module; only Transformer, Pooling and Normalize"):
        _pooling.read(model)
    _modules(model, "Transformer")
    with pytest.raises(StageFailed, match="no Pooling module"):
        _pooling.read(model)
    _modules(model, "Transformer", "Pooling")
    _pooled_by(model, {"pooling_mode_magic_tokens": True, "pooling_mode_mean_tokens": True})
    with pytest.raises(StageFailed, match="magic_tokens"):
        _pooling.read(model)
    _pooled_by(model, {"pooling_mode_mean_tokens": False})
    with pytest.raises(StageFailed, match="pooling modes"):
        _pooling.read(model)
    (model / "1_Pooling" / "config.json").unlink()
    with pytest.raises(StageFailed, match=r"config\.json is not there: modules\.json names 1_Pooling/config\.json"):
        _pooling.read(model)
    (model / "modules.json").write_text('[{"type": "x.Pooling", "path": "../1_Pooling"}]')
    with pytest.raises(StageFailed, match="leads outside"):
        _pooling.read(model)
    (model / "modules.json").write_text("{")
    with pytest.raises(StageFailed, match="not valid JSON"):
        _pooling.read(model)


def test_each_sentence_is_a_feature_of_the_checkpoint_s_length(model: Path) -> None:
    rows = [
        {"id": "a", "sentence1": "red house", "sentence2": "blue"},
        {"id": "b", "sentence1": "x", "sentence2": "y " * 600},
    ]
    features = TASK.encode(rows, model)
    assert [f.row for f in features] == [0, 0, 1, 1]
    assert [len(f.inputs["input_ids"]) for f in features] == [4, 3, 3, 256]
    assert len(SentenceSimilarity(max_seq_length=20).encode(rows, model)[3].inputs["input_ids"]) == 20
    (model / "modules.json").unlink()
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
    assert found.rows[0] == {"id": "0", "gold": gold[0], "cosine": cosines[0]}


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
