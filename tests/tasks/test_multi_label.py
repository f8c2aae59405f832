"""Any number of labels for a row: text-classification of kind multi, against scikit-learn's figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime import paired
from cpu_pipeline.tasks.text_classification import TextClassification

NAMES = ("toxic", "insult", "threat")
TASK, MULTI = TextClassification(), TextClassification(kind="multi")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several(tmp_path_factory.mktemp("model") / "bert", NAMES)


def several(out: Path, names: tuple[str, ...], **config: Any) -> Path:
    said = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    said |= {"problem_type": "multi_label_classification"}
    return make("bert", out, "text-classification", **{**said, **config})


def _answered(model: Path, labels: list[Any], logits: Any, **options: Any) -> Any:
    task = TextClassification(**options)
    rows = [{"id": str(i), **task.row({"text": "anna", "label": label})} for i, label in enumerate(labels)]
    outputs = [{"logits": np.float32(one)} for one in logits]
    predictions = task.decode(rows, task.encode(rows, model), outputs, model)
    return task, rows, {prediction["id"]: prediction for prediction in predictions}


def _drawn(count: int = 60, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    gold = rng.random((count, len(NAMES))) < 0.4
    logits = np.round(2.0 * gold - 1 + rng.normal(0, 1.5, gold.shape), 1)  # with ties
    return gold, logits


def test_metrics_equal_scikit_learn_s(model: Path) -> None:
    gold, logits = _drawn()
    task, rows, said = _answered(model, gold.tolist(), logits)
    found = task.score(rows, said)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    chosen = scores >= 0.5
    expected = {
        "f1_micro": f1_score(gold, chosen, average="micro"),
        "f1_macro": f1_score(gold, chosen, average="macro"),
        "exact_match": accuracy_score(gold, chosen),
        "mAP": average_precision_score(gold, scores, average="macro"),
        **{f"f1:{name}": value for name, value in zip(NAMES, f1_score(gold, chosen, average=None), strict=True)},
    }
    assert list(found.metrics) == list(expected)
    assert found.metrics == pytest.approx(expected)
    some = [1, 1, 5, 20, 33, 40]
    again = f1_score(gold[some], chosen[some], average="macro", zero_division=0)
    assert task.aggregate([found.rows[i] for i in some], "f1_macro") == pytest.approx(again)
    assert task.packed(found.rows).take(np.array(some)).metric("f1_macro") == pytest.approx(again)


def test_a_label_that_no_row_has_counts_nothing_as_in_scikit_learn(model: Path) -> None:
    gold, logits = _drawn()
    gold[:, 2] = False
    task, rows, said = _answered(model, gold.tolist(), logits)
    found = task.score(rows, said).metrics
    chosen = logits >= 0
    assert found["f1_macro"] == pytest.approx(f1_score(gold, chosen, average="macro", zero_division=0))
    with pytest.warns(UserWarning, match="No positive class"):
        assert found["mAP"] == pytest.approx(average_precision_score(gold, logits, average="macro"))


def test_thresholds_are_one_for_all_one_for_each_or_by_name(model: Path) -> None:
    logits = [[0.1, 0.1, 0.1]]

    def chosen(threshold: Any) -> Any:
        return _answered(model, [[]], logits, threshold=threshold)[2]["0"]["labels"]

    assert chosen(0.5) == list(NAMES)
    assert chosen(0.6) == []
    assert chosen([0.6, 0.5, 0.6]) == ["insult"]
    assert chosen({"Toxic": 0.9}) == ["insult", "threat"]
    for wrong, says in (([0.5, 0.5], "2 numbers, and the model has 3 labels"), ({"rude": 0.4}, "'rude' is not one of")):
        with pytest.raises(RecipeError, match=says):
            TextClassification(threshold=wrong).check_model(model)
    for senseless in (0, 1, 1.5, [0.5, 1.0], {"toxic": -1}):
        with pytest.raises(ValidationError, match="between 0 and 1"):
            TextClassification(threshold=senseless)


@pytest.mark.parametrize(
    "labels",
    [
        [["toxic", "threat"], ["insult"], []],
        [["threat", "TOXIC"], "insult", []],
        [[0, 2], [1], []],
        [[1, 0, 1], [0, 1, 0], [0, 0, 0]],
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
        [[True, False, True], [False, True, False], [False, False, False]],
        ["[1, 0, 1]", '["insult"]', "[]"],
        [["0", "2"], ["1"], []],
    ],
)
def test_every_way_to_write_labels_is_read(model: Path, labels: list[Any]) -> None:
    for kind in ("multi", None):
        if kind is None and "insult" in labels:
            continue  # one name alone is one label, unless the kind says otherwise
        task, rows, said = _answered(model, labels, [[1, -1, 1], [-1, 1, -1], [-1, -1, -1]], kind=kind)
        found = task.score(rows, said)
        assert [row["gold"] for row in found.rows] == [["threat", "toxic"], ["insult"], []]
        assert found.metrics["exact_match"] == found.metrics["f1_micro"] == found.metrics["mAP"] == 1


def test_what_may_be_numbers_or_a_vector_is_asked_for(tmp_path: Path) -> None:
    model = several(tmp_path / "two", ("a", "b"))
    row = {"id": "x", "text": "", "label": [0, 1]}
    with pytest.raises(RecipeError, match=r"row x: .*\[0, 1\]: numbers of labels, or a vector .*`vector: true`"):
        TASK.check_rows([row], model)
    for vector, chosen in ((True, ["b"]), (False, ["a", "b"])):
        task, rows, said = _answered(model, [[0, 1]], [[9, 9]], vector=vector)
        assert task.score(rows, said).rows[0]["gold"] == chosen
    TASK.check_rows([{**row, "label": [1, 1]}], model)
    with pytest.raises(RecipeError, match="a vector has 0 or 1 for each of 2 outputs"):
        TextClassification(vector=True).check_rows([{**row, "label": [1]}], model)


def test_labels_the_model_lacks_are_refused(model: Path) -> None:
    with pytest.raises(RecipeError, match="row a: label 'rude' is not one of the model's: toxic, insult, threat"):
        TASK.check_rows([{"id": "a", "text": "", "label": ["toxic", "rude"]}], model)
    with pytest.raises(RecipeError, match="row a: label 7, but the model has 3 labels"):
        TASK.check_rows([{"id": "a", "text": "", "label": [7]}], model)
    with pytest.raises(RecipeError, match="two outputs are called toxic"):
        TASK.check_model(_config_of(model, id2label={0: "toxic", 1: "toxic"}, label2id={"toxic": 0}))


def _config_of(model: Path, **config: Any) -> Path:
    return several(model.parent / "other", NAMES, **config)


def test_a_list_needs_a_model_of_several_labels(tmp_path: Path) -> None:
    single = make("bert", tmp_path / "bert", "text-classification")
    with pytest.raises(
        RecipeError, match=r"row a: `label` is a list, and the model is of kind single; .*`kind: multi`"
    ):
        TASK.check_rows([{"id": "a", "text": "", "label": ["POSITIVE"]}], single)
    MULTI.check_rows([{"id": "a", "text": "", "label": ["POSITIVE"]}], single)  # nothing says otherwise


def test_missing_and_nan_are_wrong_in_every_metric(model: Path) -> None:
    gold, logits = _drawn(4)
    logits[0] = math.nan
    task, rows, said = _answered(model, gold.tolist(), logits)
    assert said["0"] == {"id": "0", "labels": None, "nan": True, "gold": said["0"]["gold"]}
    del said["1"]
    found = task.score(rows, said)
    assert found.counts == {"rows": 4, "missing": 1, "unknown": 0, "nan": 1}
    assert [row["exact_match"] for row in found.rows][:2] == [0, 0]
    assert found.metrics["exact_match"] == sum(row["exact_match"] for row in found.rows) / 4
    # Rows without an answer come after all that have one.
    order = np.where(np.isin(np.arange(4), [0, 1])[:, None], -100.0, logits)
    assert found.metrics["mAP"] == pytest.approx(average_precision_score(gold, order, average="macro"))


def test_predictions_made_elsewhere_need_no_scores() -> None:
    rows = [{"id": "a", "text": "", "label": ["toxic"]}, {"id": "b", "text": "", "label": ["insult", "toxic"]}]
    said = {"a": {"id": "a", "labels": ["toxic"]}, "b": {"id": "b", "labels": ["toxic"]}}
    found = MULTI.score(rows, said)
    assert found.metrics == pytest.approx(
        {"f1_micro": 0.8, "f1_macro": 0.5, "exact_match": 0.5, "f1:insult": 0.0, "f1:toxic": 1.0}
    )
    with pytest.raises(RecipeError, match="row a: labels are numbers, and no prediction has `scores`"):
        MULTI.score([{**rows[0], "label": [0]}], said)
    with pytest.raises(RecipeError, match="prediction a: `labels` is 'toxic', not a list of names"):
        MULTI.score(rows[:1], {"a": {"id": "a", "labels": "toxic"}})


def test_the_choice_is_the_whole_set(model: Path) -> None:
    choice = TextClassification(threshold={"toxic": 0.9}).choice(model)
    assert choice is not None
    assert choice(np.array([2.0, 0.0, -0.1])) == "010" and choice(np.array([2.3, -1.0, 3.0])) == "101"


def test_what_never_varies_is_named(model: Path) -> None:
    task, rows, said = _answered(model, [["toxic"]] * 3, [[1, -1, -1], [-1, 1, -1], [1, 1, 1]])
    assert task.score(rows, said).constant == {"rows": "labels ['toxic']"}
    task, rows, said = _answered(model, [["toxic"], [], ["insult"]], [[1, -1, -1]] * 3)
    assert task.score(rows, said).constant == {"answers": "labels ['toxic']"}


def test_metrics_are_known_from_options_and_the_model(model: Path) -> None:
    fixed = ("f1_micro", "f1_macro", "exact_match", "mAP")
    assert MULTI.metrics_of() == fixed
    assert TASK.metrics_of(model) == (*fixed, "f1:toxic", "f1:insult", "f1:threat")
    assert MULTI.has_metric("f1:toxic") and not MULTI.has_metric("accuracy") and TASK.has_metric("accuracy")
    assert not TextClassification(kind="single").has_metric("f1:toxic")


def test_intervals_hold_the_difference_and_are_quick(model: Path) -> None:
    gold, logits = _drawn(300)
    task, rows, said = _answered(model, gold.tolist(), logits)
    worse = _answered(model, gold.tolist(), np.where(np.arange(300)[:, None] % 4 == 0, -logits, logits))[2]
    ours, theirs = task.score(rows, worse), task.score(rows, said)
    sides = ours.rows, theirs.rows
    for name in ours.metrics:
        packed = task.packed(sides[0]), task.packed(sides[1])
        found = paired.compare(*sides, name, task.aggregate, [0.95], packed=packed)
        assert found.lower[0] < found.value < found.upper[0] < 0
        assert found.value == pytest.approx(ours.metrics[name] - theirs.metrics[name])
    few = ours.rows[:40], theirs.rows[:40]
    slow = paired.compare(*few, "f1_macro", task.aggregate, [0.95])
    packed = task.packed(few[0]), task.packed(few[1])
    quick = paired.compare(*few, "f1_macro", task.aggregate, [0.95], packed=packed)
    assert quick == slow
