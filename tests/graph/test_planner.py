"""How recipes and pipelines become graphs: wiring, shared predictions, outputs, and what the command line sets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import ROOT

from cpu_pipeline import api, stages
from cpu_pipeline.cli.options import parse_sets
from cpu_pipeline.core.errors import RecipeError, Refused
from cpu_pipeline.graph import step_nodes
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.stages._base import Facts, Inputs, Job, Stage

HEAD = "model: {folder: model}\ntask: question-answering\n"
DATA = "data:\n  validation: {file: rows.jsonl}\n"
Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    """Plan a recipe that is written as text."""

    def make(text: str, until: str | None = None, sets: list[str] | None = None, pipelines: Any = None) -> Plan:
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "pipelines").mkdir(exist_ok=True)
        for name, written in (pipelines or {}).items():
            (tmp_path / "pipelines" / f"{name}.yaml").write_text(written)
        path = tmp_path / "recipes" / "toy.yaml"
        path.write_text(text)
        return api.plan(api.load_recipe(path, parse_sets(sets)), until)

    return make


def wires(plan: Plan) -> dict[str, dict[str, str]]:
    return {name: dict(node.inputs) for name, node in plan.nodes.items()}


def test_a_list_is_a_chain_that_reports_do_not_break(plan: Planner) -> None:
    made = plan(
        HEAD
        + DATA
        + "stages:\n"
        + "  - {id: float, use: export.onnx}\n"
        + "  - {id: same, use: validate.agreement, from: {reference: model}, with: {cosine: 0.9}}\n"
        + "  - {id: int8, use: quantize.onnx}\n"
    )
    assert wires(made) == {
        "model:files": {},
        "model": {"files": "model:files"},
        "data.validation:files": {},
        "data.validation": {"files": "data.validation:files"},
        "model:fidelity": {"model": "model", "files": "model:files"},
        "float": {"model": "model"},
        "same": {"candidate": "float", "reference": "model"},
        "int8": {"model": "float"},
    }
    assert made.outputs == ("int8",)
    assert made.nodes["same"].data == {"validation": "data.validation"}
    assert made.formats(made.nodes["same"]) == {"candidate": "onnx", "reference": "hf"}


def test_from_makes_the_list_a_graph(plan: Planner) -> None:
    made = plan(
        HEAD
        + "stages:\n"
        + "  - {id: late, use: fuse.onnx, from: {model: float}}\n"
        + "  - {id: float, use: export.onnx, from: {model: model}}\n"
        + "  - {id: one, use: quantize.onnx}\n"
        + "  - {id: two, use: quantize.onnx, from: {model: late}}\n"
    )
    assert wires(made)["late"] == {"model": "float"}
    assert wires(made)["one"] == {"model": "float"}
    order = list(made.nodes)
    assert order.index("float") < order.index("late") < order.index("two")
    assert made.outputs == ("one", "two")


def test_each_artifact_predicts_once_whoever_asks(plan: Planner) -> None:
    made = plan((ROOT / "tests/examples/valid/graph.yaml").read_text())
    predicts = {name: dict(node.inputs) for name, node in made.nodes.items() if node.use == "predict"}
    assert predicts == {
        "predict:model": {"model": "model"},
        "predict:signed": {"model": "signed"},
        "predict:unsigned": {"model": "unsigned"},
        "predict:channels": {"model": "channels"},
    }
    for step in ("signed", "unsigned", "channels"):
        check = made.nodes[f"{step}-is-right"]
        assert check.inputs == {"candidate": f"predict:{step}", "reference": "predict:model"}
        assert check.data == {"validation": "data.validation"}
        assert step in made.ancestors(check.id) and "model" in made.ancestors(check.id)
    assert made.outputs == ("signed", "unsigned", "channels")


def test_outputs_are_the_models_that_no_model_builds_on(plan: Planner) -> None:
    steps = (
        "stages:\n"
        "  - {id: sparse, use: prune.magnitude, with: {sparsity: 0.5}}\n"
        "  - {id: float, use: export.onnx}\n"
        "  - {id: int8, use: quantize.onnx}\n"
        "  - {id: ir, use: export.openvino, from: {model: sparse}}\n"
    )
    assert plan(HEAD + steps).outputs == ("int8", "ir")
    assert plan(HEAD + steps + "outputs: [float, ir]\n").outputs == ("float", "ir")
    assert plan(HEAD + steps + "outputs: []\n").outputs == ()


def test_sources_and_data_come_first_and_are_checked_before_any_step(plan: Planner) -> None:
    made = plan((ROOT / "tests/examples/valid/everything.yaml").read_text())
    roles = ("training", "calibration", "selection", "validation")
    assert made.nodes["data"].inputs == {role: f"data.{role}" for role in roles}
    assert made.nodes["model"].inputs == {"files": "model:files", "tokenizer": "tokenizer:files"}
    assert made.nodes["teacher"].inputs == {"files": "teacher:files"}
    steps = ("float", "int8", "right", "same", "fast", "predict:int8", "predict:teacher")
    for step in steps:
        assert "data" in made.nodes[step].after
        assert list(made.nodes).index("data") < list(made.nodes).index(step)
    assert {node.use for node in made.nodes.values() if node.stage.online} == {"fetch"}


def test_the_reference_is_checked_before_any_step_where_there_are_rows_to_check_it_on(plan: Planner) -> None:
    made = plan((ROOT / "tests/examples/valid/everything.yaml").read_text())
    check = made.nodes["model:fidelity"]
    assert check.inputs == {"model": "model", "files": "model:files", "tokenizer": "tokenizer:files"}
    assert check.data == {role: f"data.{role}" for role in ("calibration", "validation")} and check.after == ("data",)
    for step in ("float", "int8", "predict:int8", "predict:teacher"):
        assert "model:fidelity" in made.nodes[step].after
    steps = "stages:\n  - {id: float, use: export.onnx}\n"
    assert "model:fidelity" in plan(HEAD + DATA + steps).nodes
    assert "model:fidelity" not in plan(HEAD + steps).nodes
    assert "model:fidelity" not in plan(HEAD + DATA.replace("validation", "training") + steps).nodes


def test_one_place_is_fetched_once(plan: Planner) -> None:
    hub = '{hub: rajpurkar/squad_v2, revision: "3ffb306f725f7d2ce8394bc1873b24868140c412", split: '
    made = plan(
        "model: {folder: model}\nteacher: {folder: model}\ntask: question-answering\n"
        + f"data:\n  calibration: {hub}train, take: 10}}\n  validation: {hub}train, take: 20, seed: 1}}\n"
        + "stages:\n  - {id: float, use: export.onnx}\n"
    )
    assert [name for name, node in made.nodes.items() if node.use == "fetch"] == [
        "model:files",
        "data.calibration:files",
    ]
    assert made.nodes["data.validation"].inputs == {"files": "data.calibration:files"}
    assert made.nodes["data.validation"].stage.model_dump()["take"] == 20


def test_until_keeps_one_step_and_what_it_is_made_of(plan: Planner) -> None:
    text = (ROOT / "tests/examples/valid/graph.yaml").read_text()
    made = plan(text, until="signed")
    checked = {"model:fidelity", "data.validation:files", "data.validation"}
    assert set(made.nodes) == {"model:files", "model", "float", "signed", *checked}
    assert made.outputs == ("signed",) and made.withheld is not None
    assert made.withheld.folder == "until/signed"
    assert set(plan(text, until="model").nodes) == {"model:files", "model"}
    whole = plan(text)
    wanted = plan(text, until="signed-is-right")
    assert set(wanted.nodes) == whole.ancestors("signed-is-right") | checked
    for node in wanted.nodes.values():
        assert set(node.needs) <= set(wanted.nodes)


def test_until_still_proves_that_data_roles_are_apart(plan: Planner) -> None:
    text = (ROOT / "tests/examples/valid/everything.yaml").read_text()
    assert "data" not in plan(text, until="data.validation").nodes
    judged = plan(text, until="same").nodes
    assert {"data", "data.calibration", "data.validation"} <= set(judged)
    assert "data" in judged["same"].after


GATED = (
    "about: A pipeline.\nstages:\n  - {id: float, use: export.onnx, with: {opset: 20}}\n"
    "  - {id: int8, use: quantize.onnx, with: {per_channel: true, weights: uint8}}\n"
)


def test_options_merge_key_by_key_recipe_over_pipeline_and_command_over_both(plan: Planner) -> None:
    text = HEAD + "pipeline: ours\nwith:\n  int8: {weights: int8, samples: 9}\n"
    made = plan(text, sets=["int8.samples=10", "int8.skip_nodes=[a, b]"], pipelines={"ours": GATED})
    said = made.nodes["int8"].stage.model_dump()
    assert (said["per_channel"], said["weights"], said["samples"]) == (True, "int8", 10)
    assert said["skip_nodes"] == ("a", "b")
    assert made.nodes["float"].stage.model_dump()["opset"] == 20


def test_a_pipeline_beside_the_recipes_comes_before_a_shipped_one(plan: Planner) -> None:
    made = plan(HEAD + "pipeline: onnx-int8\n", pipelines={"onnx-int8": GATED})
    assert [node for node in made.nodes if node in ("float", "int8", "accuracy")] == ["float", "int8"]
    assert "onnx-int8.yaml:4:6" in made.nodes["int8"].where


def test_set_reads_values_as_yaml() -> None:
    given = ["a.x=1e-3", "a.y=no", "b.z=[1, two]", "a.t=", "a.s='7'", "a.eq=p=q"]
    assert parse_sets(given) == {"a": {"x": 0.001, "y": "no", "t": None, "s": "7", "eq": "p=q"}, "b": {"z": [1, "two"]}}
    assert parse_sets(["a.x=1", "a.x=2"]) == {"a": {"x": 2}}
    assert parse_sets(None) == {}


def test_a_mistake_in_a_pipeline_is_told_with_the_pipelines_line(plan: Planner) -> None:
    written = GATED.replace("quantize.onnx", "quantize.openvino").replace(
        "{per_channel: true, weights: uint8}", "{mode: weights}"
    )
    with pytest.raises(RecipeError, match=r"ours\.yaml:4:16: stages\.1\.use: step `int8` .* but `float` gives onnx"):
        plan(HEAD + "pipeline: ours\n", pipelines={"ours": written})


def test_problems_of_recipe_and_pipeline_are_told_together(plan: Planner) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(HEAD + "pipeline: ours\nwith: {int4: {}}\n", pipelines={"ours": GATED.replace("id: int8", "id: float")})
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert any("toy.yaml:4:8: with.int4: no step is called `int4`" in line for line in lines)
    assert any("ours.yaml:4:6: stages.1.id: two steps are called `float`" in line for line in lines)


@pytest.mark.parametrize("written", ["../model", "/model", "a/../../model", "~/model"])
def test_paths_stay_below_the_recipe(plan: Planner, written: str) -> None:
    with pytest.raises(Refused, match=r"toy\.yaml:1:9: model\.folder: "):
        plan(HEAD.replace("folder: model", f"folder: {written}") + "stages:\n  - {id: float, use: export.onnx}\n")


def test_a_target_decides_what_is_built_for(plan: Planner) -> None:
    from cpu_pipeline.core import host

    steps = "stages:\n  - {id: float, use: export.onnx}\n"
    assert plan(HEAD + steps).context.isa == host.isa()
    assert plan(HEAD + steps).context.threads == host.cores()
    made = plan(HEAD + steps + "target: {isa: avx2, threads: 3}\nallow: [pickle]\n").context
    assert (made.isa, made.threads, made.allow) == (host.TARGETS["avx2"], 3, ("pickle",))
    assert not host.has_vnni(made.isa)


class Choosy(Stage):
    """Look at calibration rows, or at none."""

    static: bool = False
    """Whether rows are needed."""
    takes: ClassVar = {"model": {"onnx"}}
    reads: ClassVar = frozenset({"data.calibration?"})

    def asks(self) -> Set[str]:
        return frozenset({"data.calibration"}) if self.static else frozenset()

    def gives(self) -> str:
        return "onnx"

    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        return {}


@pytest.mark.parametrize(("static", "data"), [(False, False), (False, True), (True, True), (True, False)])
def test_options_decide_which_rows_a_step_gets(
    plan: Planner, monkeypatch: pytest.MonkeyPatch, static: bool, data: bool
) -> None:
    known = stages.get
    monkeypatch.setattr(stages, "get", lambda name: Choosy if name == "quantize.onnx" else known(name))
    monkeypatch.setattr(step_nodes, "check_options", lambda *_: [])
    text = HEAD + ("data:\n  calibration: {file: rows.jsonl}\n" if data else "") + "stages:\n"
    text += "  - {id: float, use: export.onnx}\n  - {id: int8, use: quantize.onnx}\n"
    sets = [f"int8.static={'true' if static else 'false'}"]
    if static and not data:
        with pytest.raises(RecipeError, match=r"`data.calibration` is missing; step `int8` \(quantize.onnx, "):
            plan(text, sets=sets)
    else:
        found = plan(text, sets=sets).nodes["int8"].data
        assert found == ({"calibration": "data.calibration"} if static else {})


def big(steps: int) -> str:
    """Write a recipe of so many steps: long chains, wide fans and checks."""
    lines = [HEAD + DATA + "stages:"]
    for i in range(steps // 4):
        lines += [
            f"  - {{id: e{i}, use: export.onnx, from: {{model: model}}}}",
            f"  - {{id: f{i}, use: fuse.onnx, from: {{model: {f'f{i - 1}' if i % 2 else f'e{i}'}}}}}",
            f"  - {{id: q{i}, use: quantize.onnx}}",
            f"  - {{id: a{i}, use: validate.accuracy, from: {{reference: model}}, with: {{max_drop: 0.01}}}}",
        ]
    return "\n".join(lines) + "\n"


def calls(work: Callable[[], object]) -> int:
    """Count the Python functions that are called: a measure of work that no busy machine disturbs."""
    count = 0

    def seen(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_planning_takes_work_in_proportion_to_the_steps(plan: Planner) -> None:
    plan(big(40))
    small, large = calls(lambda: plan(big(200))), calls(lambda: plan(big(800)))
    assert large < 4.4 * small


def test_a_chain_of_thousands_does_not_recurse(plan: Planner) -> None:
    steps = "\n".join(f"  - {{id: s{i}, use: fuse.onnx, from: {{model: s{i + 1}}}}}" for i in range(2000))
    made = plan(HEAD + f"stages:\n{steps}\n  - {{id: s2000, use: export.onnx, from: {{model: model}}}}\n")
    assert list(made.nodes)[-1] == "s0" and made.outputs == ("s0",)
    assert len(made.ancestors("s0")) == 2003


def test_no_output_takes_the_folder_of_what_gates_measured(plan: Planner) -> None:
    """Its files and theirs would lie together, and neither would be what its digest says."""
    steps = "stages:\n  - {id: checks, use: export.onnx}\n  - {id: int8, use: quantize.onnx}\n"
    assert plan(HEAD + steps).outputs == ("int8",)
    says = r"toy.yaml:4:\d+: .*`checks` is the folder of a version for what gates measured; call the output"
    with pytest.raises(RecipeError, match=says):
        plan(HEAD + steps + "outputs: [checks]\n")
    with pytest.raises(RecipeError, match=says):
        plan(HEAD + "stages:\n  - {id: checks, use: export.onnx}\n")
    with pytest.raises(RecipeError, match="no step that gives a model is called `checks`"):
        plan(HEAD + "stages:\n  - {id: int8, use: export.onnx}\noutputs: [checks]\n")
    pipelines = {"mine": "about: x.\nstages: [{id: checks, use: export.onnx}]\n"}
    with pytest.raises(RecipeError, match=r"mine.yaml:2:\d+: .*call the output something else"):
        plan(HEAD + "pipeline: mine\n", pipelines=pipelines)


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        (
            "question-answering",
            "{metric: exactmatch, max_drop: 0.1}",
            "no metric `exactmatch` (did you mean `exact_match`?); it has: f1, exact_match",
        ),
        ("question-answering", "{metric: NoAns_f1, max_drop: 0.1}", "no metric `NoAns_f1`; it has: f1, exact_match"),
        ("text-classification", "{metric: mse, at_least: 0.1}", "mse is an error, less is better; use `at_most`"),
        ("{use: text-classification, with: {kind: single}}", "{metric: mse, at_most: 0.1}", "no metric `mse`"),
    ],
)
def test_a_gate_s_metric_is_one_of_the_task_s(plan: Planner, task: str, options: str, says: str) -> None:
    head = f"model: {{folder: model}}\ntask: {task}\n" + DATA
    step = f"  - {{id: right, use: validate.accuracy, from: {{candidate: model, reference: model}}, with: {options}}}\n"
    with pytest.raises(RecipeError) as caught:
        plan(head + "stages:\n" + step)
    assert says in str(caught.value) and "toy.yaml:6:" in str(caught.value) and "step `right`" in str(caught.value)
    pipeline = "about: Gates.\nstages:\n" + step.replace(options, "{max_drop: 0.1}")
    with pytest.raises(RecipeError) as caught:
        plan(head + f"pipeline: gates\nwith:\n  right: {options}\n", pipelines={"gates": pipeline})
    assert says in str(caught.value) and "with.right" in str(caught.value)


def test_a_gate_s_metric_may_be_a_label_s_own_or_that_of_a_version(plan: Planner) -> None:
    for task, metric in (
        ("text-classification", "f1:toxic"),
        ("{use: question-answering, with: {version: 2}}", "NoAns_f1"),
        ("{use: text-classification, with: {kind: regression}}", "spearman"),
    ):
        step = "use: validate.accuracy, from: {reference: model}, "
        step += f"with: {{metric: '{metric}', max_drop: 0}}"
        right = f"  - {{id: right, {step}}}\n"
        plan(f"model: {{folder: model}}\ntask: {task}\n" + DATA + "stages:\n  - {id: made, use: export.onnx}\n" + right)
