"""Labels are matched by name: order, case and spelling may differ, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._names import Names, fold, match
from cpu_pipeline.tasks.image_classification import ImageClassification
from cpu_pipeline.tasks.text_classification import TextClassification


def _config(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _named(folder: Path, *names: str, **more: Any) -> Path:
    return _config(folder, id2label={str(i): name for i, name in enumerate(names)}, **more)


@pytest.mark.parametrize(
    ("label", "names", "found"),
    [
        ("POSITIVE", ("NEGATIVE", "POSITIVE"), "POSITIVE"),
        ("positive", ("NEGATIVE", "POSITIVE"), "POSITIVE"),
        ("very good", ("very_good", "bad"), "very_good"),
        (" Very-Good ", ("very_good", "bad"), "very_good"),
        ("a", ("A", "a"), "a"),  # exactly this one
        ("Ä", ("ä", "x"), "ä"),
        ("a ", ("A", "a"), None),  # two fit
        ("neutral", ("NEGATIVE", "POSITIVE"), None),
        ("verygood", ("very_good",), None),
    ],
)
def test_names_match_exactly_and_then_without_regard_to_spelling(
    label: str, names: tuple[str, ...], found: str | None
) -> None:
    assert match(label, names) == found


def test_folding() -> None:
    assert fold("  Very_GOOD--indeed ") == fold("very good indeed")


def test_digits_are_names_where_the_model_has_such_names_and_numbers_elsewhere(tmp_path: Path) -> None:
    stars = Names.read(_named(tmp_path / "stars", *"12345"), None)
    assert [stars.resolve(label) for label in ("1", "5", "0", "6", 0, 4, 5)] == ["1", "5", None, None, 0, 4, None]
    words = Names.read(_named(tmp_path / "words", "bad", "good"), None)
    assert [words.resolve(label) for label in ("1", "2", "01", "good", 1, 1.0, 0.5)] == [1, None, 1, "good", 1, 1, None]
    assert [words.name(label) for label in ("1", "GOOD", 0)] == ["good", "good", "bad"]


def test_truth_values_are_names_and_else_the_numbers_of_two_outputs_without_names(tmp_path: Path) -> None:
    assert TextClassification().row({"text": "a", "label": True})["label"] == "true"
    assert Names.read(_named(tmp_path / "named", "True", "False"), None).name("true") == "True"
    assert Names.read(_config(tmp_path / "two", num_labels=2), None).name("true") == "LABEL_1"
    assert Names.read(_config(tmp_path / "three", num_labels=3), None).name("true") is None
    assert Names.read(_named(tmp_path / "other", "no", "yes"), None).name("true") is None


def test_default_names_are_no_names(tmp_path: Path) -> None:
    model = _named(tmp_path / "model", "LABEL_0", "LABEL_1", "LABEL_2")
    names = Names.read(model, None)
    assert not names.named
    assert [names.resolve(label) for label in (2, "2", "label_2", "good")] == [2, 2, "LABEL_2", None]
    given = Names.read(model, ("bad", "fine", "good"))
    assert given.named and [given.name(label) for label in ("Good", 0)] == ["good", "bad"]
    with pytest.raises(RecipeError, match="`labels` are 2, and the model has 3 outputs"):
        Names.read(model, ("bad", "good"))
    task = TextClassification()
    with pytest.raises(
        RecipeError, match=r"outputs have none \(LABEL_0, .*rows have good\. .*`labels: \[\.\.\., \.\.\.\]`"
    ):
        task.check_rows([{"id": "a", "text": "", "label": "good"}], model)


def test_names_that_label2id_alone_has_are_taken(tmp_path: Path) -> None:
    said = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"good": 1, "bad": 0}}
    assert _tokens.labels(_config(tmp_path / "a", **said)) == ["bad", "good"]
    assert _tokens.labels(_config(tmp_path / "b", label2id={"good": 1, "bad": 0})) == ["bad", "good"]
    # transformers writes the default one of the two where only the other was set.
    said = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    assert _tokens.labels(_config(tmp_path / "c", **said)) == ["bad", "good"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"id2label": {"0": "a", "2": "b", "5": "c"}}, "names the outputs 0, 2, 5; 3 outputs are 0 to 2"),
        ({"id2label": {"1": "a", "2": "b"}}, "names the outputs 1, 2; 2 outputs are 0 to 1"),
        ({"id2label": {"a": 0, "b": 1}}, "names the outputs a, b"),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "label2id says that a is 1, id2label that it is 0",
        ),
    ],
)
def test_names_that_are_not_one_for_each_output_are_refused(tmp_path: Path, config: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        _tokens.labels(_config(tmp_path / "model", **config))


def test_a_map_says_which_label_is_which(tmp_path: Path) -> None:
    model = _named(tmp_path / "model", "NEGATIVE", "POSITIVE")
    names = Names.read(model, {"sad": "negative", "happy": 1, "0": "POSITIVE", "odd": "nothing"})
    assert [names.name(label) for label in ("sad", "HAPPY", 0, "0", "odd", "POSITIVE")] == [
        "NEGATIVE", "POSITIVE", "POSITIVE", "POSITIVE", None, "POSITIVE",
    ]  # fmt: skip
    task = TextClassification(labels={"sad": "negative", "happy": 1})
    task.check_rows([{"id": "a", "text": "", "label": "happy"}], model)
    with pytest.raises(
        RecipeError, match=r"'meh' is not one of the model's: NEGATIVE, POSITIVE; the rows have meh, sad"
    ):
        task.check_rows([{"id": str(i), "text": "", "label": label} for i, label in enumerate(("sad", "meh"))], model)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("bert", tmp_path_factory.mktemp("model") / "bert", "text-classification")


def _answered(model: Path, said: list[Any], logits: list[list[float]], **options: Any) -> Any:
    """Score rows with these labels, answered with these logits by a model of NEGATIVE and POSITIVE."""
    task = TextClassification(**options)
    rows = [{"id": str(i), **task.row({"text": "anna", "label": label})} for i, label in enumerate(said)]
    outputs = [{"logits": np.float32(one)} for one in logits]
    predictions = task.decode(rows, task.encode(rows, model), outputs, model)
    return task.score(rows, {prediction["id"]: prediction for prediction in predictions})


@pytest.mark.parametrize(
    "labels",
    [
        ["POSITIVE", "NEGATIVE", "POSITIVE", "NEGATIVE"],
        ["positive", "negative", "Positive", "NEGATIVE "],
        [1, 0, 1, 0],
        ["1", "0", "1", "0"],
        [1.0, 0.0, 1.0, 0.0],
        ["positive", "0", 1, "NEGATIVE"],
    ],
)
@pytest.mark.parametrize("average", ["macro", "binary"])
def test_every_spelling_of_a_label_scores_the_same(model: Path, labels: list[Any], average: str) -> None:
    found = _answered(model, labels, [[0, 1], [1, 0], [1, 0], [1, 0]], average=average)
    expected = {"macro": (0.8 + 2 / 3) / 2, "binary": 2 / 3}[average]
    assert found.metrics == pytest.approx({"accuracy": 0.75, "f1": expected, "matthews": 3**-0.5})
    assert _answered(model, labels, [[0, 1], [1, 0], [0, 1], [1, 0]]).metrics["accuracy"] == 1


def test_numbers_that_a_data_set_orders_otherwise_are_named(model: Path) -> None:
    found = _answered(model, [0, 1], [[0, 1], [1, 0]], labels=("positive", "negative"), average="binary", positive=0)
    assert found.metrics == {"accuracy": 1, "f1": 1, "matthews": 1}
    assert _answered(model, [0, 1], [[0, 1], [1, 0]]).metrics["accuracy"] == 0  # the number alone is a position


def test_two_names_that_differ_in_case_are_two(tmp_path: Path) -> None:
    two = make("bert", tmp_path / "two", "text-classification", id2label={0: "A", 1: "a"}, label2id={"A": 0, "a": 1})
    assert _answered(two, ["A", "a"], [[0, 1], [0, 1]]).metrics["accuracy"] == 0.5


def test_a_row_without_an_answer_counts_for_its_own_label(model: Path) -> None:
    task = TextClassification()
    rows = [
        {"id": str(i), "text": "anna", "label": label} for i, label in enumerate(("positive", "negative", "positive"))
    ]
    outputs = [{"logits": np.float32(one)} for one in ([0, 1], [1, 0])]
    predictions = task.decode(rows[:2], task.encode(rows[:2], model), outputs, model)
    found = task.score(rows, {prediction["id"]: prediction for prediction in predictions})
    assert {row["gold"] for row in found.rows} == {"POSITIVE", "NEGATIVE"}
    assert found.metrics["f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_predictions_made_elsewhere_may_spell_names_otherwise() -> None:
    rows = [{"id": "a", "text": "", "label": "very good"}, {"id": "b", "text": "", "label": "bad"}]
    said = {"a": {"id": "a", "label": "Very_Good"}, "b": {"id": "b", "label": "BAD"}}
    task = TextClassification(average="binary", positive="VERY GOOD")
    assert task.score(rows, said).metrics == {"accuracy": 1, "f1": 1, "matthews": 1}


def test_a_positive_label_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    model = _named(tmp_path / "model", "NEGATIVE", "POSITIVE")
    TextClassification(average="binary", positive="positive").check_model(model)
    with pytest.raises(RecipeError, match="positive: 'good' is not one of the model's labels: NEGATIVE, POSITIVE"):
        TextClassification(average="binary", positive="good").check_model(model)


def test_a_head_that_differs_from_its_configuration_is_refused(model: Path) -> None:
    with pytest.raises(RecipeError, match=r"gives 3 outputs, and config.json \(id2label\) names 2"):
        _answered(model, ["NEGATIVE"], [[0, 1, 2]])


def test_images_are_labelled_by_name_too_and_need_two_labels(tmp_path: Path) -> None:
    task, model = ImageClassification(), _named(tmp_path / "model", "tabby_cat", "dog")
    task.check_rows([{"id": "a", "image": "a.png", "label": "Tabby cat"}], model)
    with pytest.raises(RecipeError, match="'bird' is not one of the model's: tabby_cat, dog"):
        task.check_rows([{"id": "a", "image": "a.png", "label": "bird"}], model)
    with pytest.raises(RecipeError, match=r"one output \(score\)"):
        task.check_model(_named(tmp_path / "one", "score"))
