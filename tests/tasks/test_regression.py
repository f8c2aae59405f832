"""Numbers in, a number out: text-classification with one output, against scikit-learn's and scipy's figures."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._regression import METRICS
from cpu_pipeline.tasks.text_classification import TextClassification

TASK = TextClassification()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_output(tmp_path_factory.mktemp("model") / "bert")


def one_output(out: Path, **config: Any) -> Path:
    names: dict[str, Any] = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return make("bert", out, "text-classification", **{**names, **config})


def _score(gold: list[Any], values: list[float | None]) -> Any:
    rows = [{"id": str(i), "text": "", "label": label} for i, label in enumerate(gold)]
    return TASK.score(rows, {str(i): {"id": str(i), "value": v} for i, v in enumerate(values) if v is not None})


def test_metrics_equal_those_of_scikit_learn_and_scipy() -> None:
    rng = random.Random(0)
    gold = [round(5 * rng.random(), 1) for _ in range(80)]  # with ties
    values = [round(g + rng.gauss(0, 1), 1) for g in gold]
    expected = {
        "r2": r2_score(gold, values),
        "pearson": pearsonr(gold, values).statistic,
        "spearman": spearmanr(gold, values).statistic,
        "mse": mean_squared_error(gold, values),
        "rmse": root_mean_squared_error(gold, values),
        "mae": mean_absolute_error(gold, values),
    }
    found = _score(gold, list(values))
    assert list(found.metrics) == list(METRICS)
    assert found.metrics == pytest.approx(expected)
    some = [4, 4, 9, 30, 31]
    picked = [gold[i] for i in some], [values[i] for i in some]
    assert TASK.aggregate([found.rows[i] for i in some], "r2") == pytest.approx(r2_score(*picked))


def test_metrics_by_hand() -> None:
    found = _score([1, 2, 3, "6"], [1.5, 2, 2, 7])
    assert found.metrics["mse"] == pytest.approx((0.25 + 0 + 1 + 1) / 4)
    assert found.metrics["mae"] == pytest.approx(2.5 / 4)
    assert found.metrics["r2"] == pytest.approx(1 - 2.25 / 14)
    assert found.metrics["spearman"] == pytest.approx(spearmanr([1, 2, 3, 6], [1.5, 2, 2, 7]).statistic)
    assert TASK.lower_is_better == {"mse", "rmse", "mae"}


def test_what_is_not_defined_is_nan_and_named() -> None:
    found = _score([2, 2, 2], [1, 2, 3])
    assert [name for name, value in found.metrics.items() if math.isnan(value)] == ["r2", "pearson", "spearman"]
    assert found.constant == {"rows": "label 2"}
    assert _score([1, 2, 3], [0.5, 0.5, 0.5]).constant == {"answers": "label 0.5"}
    assert all(math.isnan(value) for value in TextClassification(kind="regression").score([], {}).metrics.values())


def test_rows_without_an_answer_are_left_out_and_counted() -> None:
    rows = [{"id": str(i), "text": "", "label": i} for i in range(4)]
    said = {
        "0": {"id": "0", "value": 0.0},
        "1": {"id": "1", "value": 2.0},
        "2": {"id": "2", "value": None, "nan": True},
    }
    found = TASK.score(rows, said)
    assert found.metrics["mse"] == 0.5
    assert found.counts == {"rows": 4, "missing": 1, "unknown": 0, "nan": 1}
    with pytest.raises(RecipeError, match="prediction 0: `value` is 'x'"):
        TASK.score(rows, {"0": {"id": "0", "value": "x"}})
    with pytest.raises(RecipeError, match="row a: no `label`"):
        TextClassification(kind="regression").score([{"id": "a", "text": ""}], {})


def test_one_output_is_a_regression_and_its_number_is_the_answer(model: Path) -> None:
    rows = [{"id": "a", "text": "anna", "label": 1.5}, {"id": "b", "text": "anna", "label": "2"}]
    assert TASK.kind_of(model) == "regression"
    outputs = [{"logits": np.float32([-3.25])}, {"logits": np.float32([math.nan])}]
    found = TASK.decode(rows, TASK.encode(rows, model), outputs, model)
    assert found == [{"id": "a", "value": -3.25}, {"id": "b", "value": None, "nan": True}]
    squashed = TextClassification(activation="sigmoid").decode(
        rows[:1], TASK.encode(rows[:1], model), outputs[:1], model
    )
    assert squashed[0]["value"] == pytest.approx(1 / (1 + math.exp(3.25)))
    assert TASK.choice(model) is None
    assert TASK.metrics_of(model) == METRICS


@pytest.mark.parametrize(
    ("config", "applied"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, 0.5),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_cross_encoder_s_activation_is_applied(tmp_path: Path, config: Any, applied: float) -> None:
    model, rows = one_output(tmp_path / "bert", **config), [{"id": "a", "text": "anna"}]
    [found] = TASK.decode(rows, TASK.encode(rows, model), [{"logits": np.float32([0.0])}], model)
    assert found["value"] == applied


def test_another_activation_is_refused(tmp_path: Path) -> None:
    said = "torch.nn.modules.activation.Tanh"
    with pytest.raises(RecipeError, match="Tanh; set the task's `activation`"):
        TASK.check_model(one_output(tmp_path / "bert", sentence_transformers={"activation_fn": said}))


def test_rows_of_a_regression_have_numbers(model: Path) -> None:
    kind = TextClassification(kind="regression")
    assert [kind.row({"text": "a", "label": label})["label"] for label in (-1, "4.5", 3.0)] == [-1.0, 4.5, 3.0]
    for wrong in ("good", math.inf, True, [1]):
        with pytest.raises(ValueError, match="not a finite number"):
            kind.row({"text": "a", "label": wrong})
    with pytest.raises(RecipeError, match="row a: `label` is 'good', and the model has one output, a number"):
        TASK.check_rows([{"id": "a", "text": "", "label": "good"}], model)
    with pytest.raises(RecipeError, match="row a: `label` is a list, and the model is of kind regression"):
        TASK.check_rows([{"id": "a", "text": "", "label": [1]}], model)


def test_a_number_is_no_label_of_a_classifier(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert", "text-classification")
    row = TASK.row({"id": "a", "text": "", "label": 0.5})
    with pytest.raises(RecipeError, match=r"row a: `label` is 0.5, no number of a label; the model chooses among 2"):
        TASK.check_rows([row], model)


@pytest.mark.parametrize(
    ("options", "config", "says"),
    [
        (
            {"kind": "single"},
            {"problem_type": "regression"},
            "`kind: single`, but config.json says `problem_type: regr",
        ),
        ({"kind": "single"}, {}, r"one output \(LABEL_0\)"),
        ({"kind": "regression"}, {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}, "with 2 outputs"),
        ({"average": "binary"}, {}, "the option `average` does not fit the model, which is of kind regression"),
        ({"threshold": 0.4}, {}, "the option `threshold` does not fit"),
    ],
)
def test_options_and_heads_that_contradict_each_other_are_refused(
    tmp_path: Path, options: Any, config: Any, says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        TextClassification(**options).check_model(one_output(tmp_path / "bert", **config))
