"""What can change an output changes its key, what only judges does not, and a rebuild says which it was."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from cpu_pipeline import backends, stages
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.engine import environments, keys, packages, requirements
from cpu_pipeline.engine.keys import differences, ingredients
from cpu_pipeline.graph.plan import Context
from cpu_pipeline.stages._base import Facts, FindSource, Host, Inputs, Job, Stage
from cpu_pipeline.stages.fetch import Fetch
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.text_classification import TextClassification

VERSIONS = {"numpy": "2.1", "onnxruntime": "1.31", "tokenizers": "0.22", "onnx": "1.23"}


class Toy(Stage):
    """Do something."""

    per_channel: bool = False
    """An option that shapes the output."""
    bound: float = 0.5
    """An option that judges."""
    takes: ClassVar = {"model": {"onnx"}}
    packages: ClassVar[tuple[str, ...]] = ("onnx",)
    unkeyed: ClassVar[Set[str]] = frozenset({"bound"})

    def gives(self) -> str:
        return "onnx"

    def run(self, inputs: Inputs, out: Any, job: Job) -> Facts:
        return {}


class Running(Toy):
    """Run the model."""

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        return frozenset(formats.values())


class Sharing(Running):
    """Use a package that the backend uses too."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)


class Reading(Toy):
    """Look at everything."""

    reads: ClassVar[Set[str]] = frozenset({"task", "target", "allow"})


class Head(Toy):
    """Look at what kind of head the model has."""

    reads: ClassVar[Set[str]] = frozenset({"task.head"})


class Compiled(Toy):
    """Depend on the instruction sets."""

    def host(self) -> Host:
        return "isa"


class Timed(Toy):
    """Depend on the whole machine."""

    def host(self) -> Host:
        return "machine"


class Apart(Toy):
    """Run somewhere else."""

    def environment(self, backends: Mapping[str, str]) -> str:
        return "optimum"


class Outside(Toy):
    """Point at something outside."""

    def identity(self, source: FindSource) -> object:
        return OUTSIDE["digest"]


OUTSIDE = {"digest": "one"}
CONTEXT = Context(QuestionAnswering(), "question-answering", ("x86_64", "avx2"), 2)


@pytest.fixture(autouse=True)
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Pretend that certain versions are installed."""
    there = dict(VERSIONS)
    monkeypatch.setattr(keys, "installed", lambda name, environment="default": there.get(name, packages.ABSENT))
    return there


def asked(stage: Stage | None = None, context: Context = CONTEXT, **over: Any) -> dict[str, Any]:
    given = {"formats": {"model": "onnx"}, "inputs": {"model": "a" * 64}, "data": {"calibration": "b" * 64}, **over}
    return ingredients("toy", stage or Toy(), context=context, **given)


def why(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    assert (digest_json(old) == digest_json(new)) == (old == new)
    return differences(old, new)


def test_is_the_same_for_the_same() -> None:
    assert digest_json(asked()) == digest_json(asked())
    assert why(asked(), asked()) == []


def test_an_option_that_shapes_the_output() -> None:
    assert why(asked(Toy()), asked(Toy(per_channel=True))) == ["options.per_channel: False → True"]


def test_an_option_that_judges_does_not_count() -> None:
    assert asked(Toy(bound=0.1)) == asked(Toy(bound=0.9))
    assert "bound" not in asked()["options"]


SPEED = {"checkpoint_steps"}
"""Options of training that neither judge nor change what comes out."""


@pytest.mark.parametrize("name", stages.names(internal=True))
def test_the_unkeyed_options_of_real_stages_are_options(name: str) -> None:
    stage = stages.get(name)
    assert stage.unkeyed <= set(stage.model_fields)
    if stage.unkeyed - SPEED and not stage.internal:
        assert stage.judge is not Stage.judge


@pytest.mark.parametrize("name", ["validate.accuracy", "validate.agreement", "validate.latency"])
def test_thresholds_of_gates_are_not_keyed(name: str) -> None:
    given: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "validate.accuracy": (
            {"max_drop": 0.01},
            {"max_drop": 0.5, "drop": "relative", "at_least": 0.1, "min_rows": 3},
        ),
        "validate.agreement": ({"cosine": 0.9}, {"same_top": 0.5, "max_difference": 1, "mean_difference": 1}),
        "validate.latency": ({"min_speedup": 1.5}, {"max_median": 0.1}),
    }
    cls = stages.get(name)
    formats = {"candidate": "onnx", "reference": "hf"}
    one, other = (asked(cls(**options), formats=formats) for options in given[name])
    assert one == other


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": {"model": "c" * 64}}, ["inputs.model: aaaaaaaaaaaa… → cccccccccccc…"]),
        ({"data": {"calibration": "d" * 64}}, ["data.calibration: bbbbbbbbbbbb… → dddddddddddd…"]),
        ({"data": {}}, ["data.calibration: bbbbbbbbbbbb… → none"]),
        ({"stage": Toy(per_channel=True), "inputs": {"model": "c" * 64}},
         ["inputs.model: aaaaaaaaaaaa… → cccccccccccc…", "options.per_channel: False → True"]),
    ],
)  # fmt: skip
def test_inputs_and_data(change: dict[str, Any], says: list[str]) -> None:
    assert why(asked(), asked(**change)) == says


def test_the_version_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    old = asked()
    monkeypatch.setattr(Toy, "version", 2)
    assert why(old, asked()) == ["version: 1 → 2"]


def test_the_epoch_and_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    old = asked()
    monkeypatch.setattr(keys, "EPOCH", keys.EPOCH + 1)
    assert why(old, asked()) == [f"epoch: {keys.EPOCH - 1} → {keys.EPOCH}"]
    assert digest_json(old) != digest_json({**old, "stage": "other"})


def test_the_minor_version_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    old = asked()
    monkeypatch.setattr(sys, "version_info", (3, 14, 2, "final", 0))
    [said] = why(old, asked())
    assert said == f"python: {old['python']} → 3.14"
    monkeypatch.setattr(sys, "version_info", (3, 14, 3, "final", 0))
    assert asked()["python"] == "3.14", "patch releases compute the same"


def test_python_is_in_no_key_of_what_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    models = Fetch(source="hub", fields={"hub": "a/b", "revision": "0" * 40}, want="model")
    old = asked(models)
    monkeypatch.setattr(sys, "version_info", (3, 14, 2, "final", 0))
    assert asked(models) == old


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("quantize.onnx", {}, False),
        ("quantize.onnx", {"mode": "static"}, True),
        ("quantize.openvino", {"mode": "weights"}, False),
        ("quantize.openvino", {}, True),
        ("quantize.pt2e", {"activations": "dynamic"}, False),
        ("quantize.pt2e", {}, True),
        ("export.onnx", {}, False),
    ],
)
def test_options_of_the_task_count_where_rows_are_encoded(name: str, options: dict[str, Any], counts: bool) -> None:
    stage = stages.get(name)(**options)
    others = replace(CONTEXT, task=QuestionAnswering(max_seq_length=128, doc_stride=32))
    assert (asked(stage) != asked(stage, others)) == counts


def test_a_package_of_the_stage(versions: dict[str, str]) -> None:
    old = asked()
    versions["onnx"] = "1.24"
    assert why(old, asked()) == ["onnx 1.23 → 1.24"]
    del versions["onnx"]
    assert why(old, asked()) == ["onnx 1.23 → not installed"]


def test_a_package_that_stage_and_backend_share_is_told_once(versions: dict[str, str]) -> None:
    old = asked(Sharing())
    versions["onnxruntime"] = "1.32"
    assert why(old, asked(Sharing())) == ["onnxruntime 1.31 → 1.32"]


def test_a_package_that_nothing_uses_does_not_count(versions: dict[str, str]) -> None:
    old = asked()
    versions["onnxruntime"] = "1.32"
    assert why(old, asked()) == []


def test_a_package_of_a_backend_that_is_used(versions: dict[str, str]) -> None:
    old = asked(Running())
    versions["onnxruntime"] = "1.32"
    assert why(old, asked(Running())) == ["onnxruntime 1.31 → 1.32"]


def test_the_version_of_a_backend_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    old, unused = asked(Running()), asked(Toy())
    backend = backends.get("onnx")
    before = backend.VERSION
    monkeypatch.setattr(backend, "VERSION", before + 1)
    assert why(old, asked(Running())) == [f"backends.onnx.version: {before} → {before + 1}"]
    assert why(unused, asked(Toy())) == []


def test_the_task_where_it_is_read() -> None:
    longer = replace(CONTEXT, task=QuestionAnswering(max_seq_length=256))
    assert why(asked(Reading()), asked(Reading(), longer)) == ["task.options.max_seq_length: 384 → 256"]
    assert why(asked(Toy()), asked(Toy(), longer)) == []
    other = replace(CONTEXT, task=TextClassification(), task_name="text-classification")
    assert "task.use: question-answering → text-classification" in why(asked(Reading()), asked(Reading(), other))


def test_the_version_and_packages_of_the_task(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    old = asked(Reading())
    monkeypatch.setattr(QuestionAnswering, "version", QuestionAnswering.version + 1)
    assert why(old, asked(Reading()))[0].startswith("task.version: ")
    monkeypatch.undo()


def test_packages_of_the_task(versions: dict[str, str]) -> None:
    package = QuestionAnswering.packages[0]
    old = asked(Reading())
    versions[package] = "99"
    assert why(old, asked(Reading())) == [f"{package} {VERSIONS[package]} → 99"]


def test_the_head_of_the_task_is_not_its_options() -> None:
    longer = replace(CONTEXT, task=QuestionAnswering(max_seq_length=256))
    assert asked(Head()) == asked(Head(), longer)
    other = replace(CONTEXT, task=TextClassification(), task_name="text-classification")
    assert "task.use: question-answering → text-classification" in why(asked(Head()), asked(Head(), other))


def test_the_target_and_what_is_allowed_where_they_are_read() -> None:
    other = replace(CONTEXT, isa=("x86_64", "avx2", "avx512f"), allow=("pickle",))
    assert why(asked(Toy()), asked(Toy(), other)) == []
    says = why(asked(Reading()), asked(Reading(), other))
    assert [line.split(":")[0] for line in says] == ["allow", "target"]


def test_the_instruction_sets_where_they_shape_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    old, plain = asked(Compiled()), asked(Toy())
    monkeypatch.setattr(host, "isa", lambda: ("riscv64",))
    assert why(plain, asked(Toy())) == []
    [says] = why(old, asked(Compiled()))
    assert says.startswith("host.isa: ")


def test_the_machine_and_threads_where_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    old, compiled = asked(Timed()), asked(Compiled())
    more = replace(CONTEXT, threads=7)
    assert why(old, asked(Timed(), more)) == ["host.threads: 2 → 7"]
    assert why(compiled, asked(Compiled(), more)) == []
    monkeypatch.setattr(host, "cpu_model", lambda: "Another CPU")
    assert why(compiled, asked(Compiled())) == []
    [says] = why(old, asked(Timed()))
    assert says.startswith("host.cpu: ") and says.endswith("→ Another CPU")


def test_the_environment_with_its_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    there = asked(Apart())
    [says] = why(asked(Toy()), there)
    assert says.startswith("environment: default → {")
    moved = replace(environments.get("optimum"), digest="f" * 64)
    monkeypatch.setattr(environments, "get", lambda _: moved)
    [says] = why(there, asked(Apart()))
    assert says.startswith("environment.pins: ") and says.endswith("ffffffffffff…")


def test_a_package_of_another_environment_has_the_version_of_its_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert packages.installed("Optimum_ONNX", "optimum") == environments.get("optimum").pins["optimum-onnx"]
    assert packages.installed("left-pad", "optimum") == packages.ABSENT


def test_predicting_runs_where_the_backend_of_the_model_does() -> None:
    predict = stages.get("predict")()
    assert requirements.home_environment(predict, {"model": "onnx"}) == "default"
    assert requirements.home_environment(predict, {"model": "ipex"}) == "ipex"
    assert requirements.environments_of(predict, {"model": "ipex"}) == {"ipex"}
    latency = stages.get("validate.latency")(min_speedup=1)
    assert requirements.environments_of(latency, {"candidate": "ipex", "reference": "hf"}) == {"default", "ipex"}


def test_what_the_options_point_at(monkeypatch: pytest.MonkeyPatch) -> None:
    old = asked(Outside())
    monkeypatch.setitem(OUTSIDE, "digest", "two")
    assert why(old, asked(Outside())) == ["identity: one → two"]


def test_a_fetch_is_keyed_by_content_commit_and_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = stages.get("fetch")
    commit = {"hub": "owner/name", "revision": "a" * 40}

    def key(**fields: str) -> dict[str, Any]:
        return ingredients("fetch", fetch(source="hub", fields=fields, want="model"), {}, {}, {}, CONTEXT)

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    old = key(**commit)
    assert why(old, key(**commit)) == []
    [says] = why(old, key(**{**commit, "revision": "b" * 40}))
    assert says == f"identity.what.revision: {'a' * 40} → {'b' * 40}"
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:1234")
    [says] = why(old, key(**commit))
    assert says.startswith("identity.what.endpoint: ") and "localhost" in says


def test_reasons_are_short() -> None:
    assert differences({"a": "x" * 41}, {"a": 3}) == ["a: xxxxxxxxxxxx… → 3"]
    assert differences({"a": {"b": 1}}, {"a": None}) == ["a: {'b': 1} → none"]
    assert differences({"a": 1, "b": {"packages": {"x": "1"}}}, {"a": 1, "b": {"packages": {"x": "2"}}}) == ["x 1 → 2"]


def test_names_every_distribution_that_a_step_needs() -> None:
    found = requirements.packages_of(Running(), {"model": "onnx"}, QuestionAnswering())
    assert found == {"onnx", *backends.get("onnx").PACKAGES}
    assert set(QuestionAnswering.packages) <= requirements.packages_of(Reading(), {}, QuestionAnswering())
    assert packages.missing(["onnx", "left-pad"]) == ["left-pad"]
