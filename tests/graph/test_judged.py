"""What goes into service: outputs that a gate judged; --set, waivers, and bounds that can fail."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from cpu_pipeline import api
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.graph import planner
from cpu_pipeline.release.settle import for_service

HEAD = """\
model: {folder: model}
task: question-answering
data: {validation: {file: rows.jsonl}}
stages:
  - {id: float, use: export.onnx}
  - {id: int8, use: quantize.onnx}
"""
GATE = "  - {id: accuracy, use: validate.accuracy, from: {reference: model}, with: {max_drop: 0.01}}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_an_output_that_no_gate_judged_is_withheld(tmp_path: Path) -> None:
    plan = api.plan(api.load_recipe(write(tmp_path, HEAD)))
    assert plan.withheld is not None and "no gate judges the answers of `int8`" in plan.withheld.reasons[0]
    judged = api.plan(api.load_recipe(write(tmp_path, HEAD + GATE)))
    assert judged.withheld is None and not judged.unchecked


def test_another_folder_is_another_model(tmp_path: Path) -> None:
    sides = "{candidate: teacher, reference: model}"
    text = f"{HEAD}  - {{id: other, use: validate.accuracy, from: {sides}, with: {{max_drop: 0.1}}}}\n"
    api.plan(api.load_recipe(write(tmp_path, "teacher: {folder: other}\n" + text)))
    with pytest.raises(RecipeError, match="compares `teacher` with itself"):
        api.plan(api.load_recipe(write(tmp_path, "teacher: {folder: model}\n" + text)))


def test_a_reason_puts_it_into_service_and_is_kept(tmp_path: Path) -> None:
    plan = api.plan(api.load_recipe(write(tmp_path, HEAD + "unchecked: {int8: a trial for one user}\n")))
    assert plan.withheld is None and plan.unchecked == {"int8": "a trial for one user"}


@pytest.mark.parametrize(
    "gate",
    [
        "  - {id: speed, use: validate.latency, from: {reference: model}, with: {min_speedup: 1.2}}\n",
        "  - {id: same, use: validate.agreement, from: {candidate: float, reference: model}, with: {cosine: 0.9}}\n",
        "  - {id: other, use: quantize.onnx, from: {model: float}, with: {per_channel: true}}\n"
        "  - {id: same, use: validate.agreement, from: {candidate: int8, reference: other}, with: {cosine: 0.9}}\n"
        "outputs: [int8]\n",
    ],
    ids=["of its speed alone", "of a step before it", "against a quantized model"],
)
def test_a_gate_that_proves_nothing_of_its_answers(tmp_path: Path, gate: str) -> None:
    assert api.plan(api.load_recipe(write(tmp_path, HEAD + gate))).withheld is not None


@pytest.mark.parametrize(
    ("unchecked", "says"), [("{int9: x}", "no step that gives a model is called `int9`"), ("{int8: ' '}", "unchecked")]
)
def test_what_is_said_to_be_unchecked_is_checked(tmp_path: Path, unchecked: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        api.plan(api.load_recipe(write(tmp_path, HEAD + f"unchecked: {unchecked}\n")))


@pytest.mark.parametrize("use", ["accuracy", "agreement", "latency"])
@pytest.mark.parametrize("side", ["model", "int8"])
def test_a_gate_cannot_compare_a_model_with_itself(tmp_path: Path, use: str, side: str) -> None:
    bound = {"accuracy": "max_drop: 0.01", "agreement": "cosine: 0.9", "latency": "min_speedup: 1.2"}[use]
    gate = f"  - {{id: g, use: validate.{use}, from: {{candidate: {side}, reference: {side}}}, with: {{{bound}}}}}\n"
    with pytest.raises(RecipeError, match=f"compares `{side}` with itself"):
        api.plan(api.load_recipe(write(tmp_path, HEAD + gate)))


@pytest.mark.parametrize(
    ("use", "bound"),
    [
        ("accuracy", "max_drop: 1"),
        ("accuracy", "max_drop: 0.9999999999"),
        ("accuracy", "max_drop: 1, drop: relative"),
        ("accuracy", "max_drop: .nan"),
        ("accuracy", "max_drop: .inf"),
        ("accuracy", "at_least: -1"),
        ("accuracy", "at_least: 0"),
        ("accuracy", "metric: exact_match, at_least: -0.5"),
        ("agreement", "same_top: 0"),
        ("agreement", "same_top: .nan"),
        ("agreement", "cosine: -1"),
        ("agreement", "max_difference: .inf"),
        ("agreement", "mean_difference: .nan"),
        ("latency", "min_speedup: 0"),
        ("latency", "min_speedup: -1"),
        ("latency", "min_speedup: .nan"),
        ("latency", "max_slowdown: .inf"),
        ("latency", "max_median: .inf"),
    ],
)
def test_a_bound_that_cannot_fail_is_refused(tmp_path: Path, use: str, bound: str) -> None:
    gate = f"  - {{id: g, use: validate.{use}, from: {{reference: model}}, with: {{{bound}}}}}\n"
    with pytest.raises(RecipeError):
        api.plan(api.load_recipe(write(tmp_path, HEAD + gate)))


def test_a_correlation_can_be_less_than_nothing(tmp_path: Path) -> None:
    head = HEAD.replace("question-answering", "sentence-similarity")
    gate = "  - {id: g, use: validate.accuracy, from: {reference: model}, with: {at_least: %s}}\n"
    assert api.plan(api.load_recipe(write(tmp_path, head + gate % "0"))).withheld is None
    with pytest.raises(RecipeError, match="spearman is never less than -1"):
        api.plan(api.load_recipe(write(tmp_path, head + gate % "-1")))


def test_an_error_has_no_upper_limit(tmp_path: Path) -> None:
    head = HEAD.replace("question-answering", "text-classification")
    gate = "  - {id: g, use: validate.accuracy, from: {reference: model}, with: {metric: mse, max_drop: 1}}\n"
    assert api.plan(api.load_recipe(write(tmp_path, head + gate))).withheld is None


SETS = {"accuracy": {"max_drop": 0.5}}


def test_what_set_changed_goes_to_no_service(tmp_path: Path) -> None:
    plan = api.plan(api.load_recipe(write(tmp_path, HEAD + GATE), SETS))
    assert plan.sets == ("accuracy.max_drop=0.5",)
    held = for_service(plan, Path("artifacts")).withheld
    assert held is not None and held.folder == "set" and "accuracy.max_drop=0.5" in held.reasons[0]
    assert for_service(plan, Path("artifacts"), "asked for by the owner").promoted_anyway == "asked for by the owner"
    own = for_service(plan, tmp_path / "own")
    assert own.withheld is None and own.sets, "its own --out: nothing else is in service there"
    with pytest.raises(RecipeError, match="give a reason"):
        for_service(plan, Path("artifacts"), " ")


@pytest.mark.parametrize("sets", [{"accuracy": {"max_drop": 0.01}}, {"data.validation": {"file": "rows.jsonl"}}, {}])
def test_a_set_to_what_the_recipe_has_anyway_changes_nothing(
    tmp_path: Path, sets: dict[str, dict[str, object]]
) -> None:
    path = write(tmp_path, HEAD + GATE)
    plan = api.plan(api.load_recipe(path, sets))
    assert not plan.sets and for_service(plan, Path("artifacts")).withheld is None
    assert plan.resolved == api.plan(api.load_recipe(path)).resolved


WAIVE = "{until: 2026-12-31, reason: the new runtime is needed}"
GATES = [
    GATE.replace("max_drop: 0.01", f"max_drop: 0.01, waive: {WAIVE}"),
    GATE.replace("}}\n", f"}}, waive: {WAIVE}}}\n"),
    GATE + f"with: {{accuracy: {{waive: {WAIVE}}}}}\n",
]


@pytest.mark.parametrize("gate", GATES, ids=["option", "key of the step", "with of the recipe"])
def test_a_waiver_ends(tmp_path: Path, gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, HEAD + gate)
    monkeypatch.setattr(planner, "today", lambda: date(2026, 12, 31))
    stage = api.plan(api.load_recipe(path)).nodes["accuracy"].stage
    assert str(stage.waiver()) == "until 2026-12-31: the new runtime is needed" and "waive" in stage.unkeyed
    monkeypatch.setattr(planner, "today", lambda: date(2027, 1, 1))
    with pytest.raises(RecipeError, match="waiver of `accuracy` ended on 2026-12-31"):
        api.plan(api.load_recipe(path))


@pytest.mark.parametrize(
    "waive", ["{until: 2026-12-31}", "{until: soon, reason: x}", "{until: 2026-12-31, reason: ''}"]
)
def test_a_waiver_has_a_day_and_a_reason(tmp_path: Path, waive: str) -> None:
    with pytest.raises(RecipeError):
        api.plan(api.load_recipe(write(tmp_path, HEAD + GATE.replace("}}\n", f"}}, waive: {waive}}}\n"))))


PRUNED = """\
model: {folder: model}
task: question-answering
data: {validation: {file: rows.jsonl}}
stages:
  - {id: pruned, use: prune.magnitude, with: {sparsity: 0.5}}
  - {id: float, use: export.onnx}
  - {id: int8, use: quantize.onnx}
  - {id: last, use: validate.accuracy, from: {reference: float}, with: {max_drop: 0.01}}
"""
FIRST = "  - {id: first, use: validate.accuracy, from: {candidate: float, reference: model}, with: {max_drop: 0.01}}\n"


def test_what_pruning_lost_has_to_be_judged_too(tmp_path: Path) -> None:
    alone = api.plan(api.load_recipe(write(tmp_path, PRUNED)))
    assert alone.withheld is not None and "`int8`" in alone.withheld.reasons[0]
    assert api.plan(api.load_recipe(write(tmp_path, PRUNED + FIRST))).withheld is None


def test_a_reference_that_is_made_as_the_candidate_is_refused(tmp_path: Path) -> None:
    twin = "  - {id: twin, use: export.onnx, from: {model: model}}\n"
    gate = GATE.replace("{reference: model}", "{candidate: float, reference: twin}")
    with pytest.raises(RecipeError, match="accuracy"):
        api.plan(api.load_recipe(write(tmp_path, HEAD + twin + gate)))
