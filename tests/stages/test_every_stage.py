"""Promises that every stage, task, source and backend keeps, whoever adds it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core import host
from cpu_pipeline.graph.plan import NOT_MODELS
from cpu_pipeline.recipe import field_docs, json_schema
from cpu_pipeline.stages._base import Stage

STAGES = stages.names(internal=True)
HEAVY = {
    "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "datasets", "scipy", "numpy",
    "pyarrow", "tokenizers", "huggingface_hub", "safetensors", "seqeval", "optimum", "sklearn", "pandas", "cyclonedx",
}  # fmt: skip
TESTS = Path(__file__).parents[1]
READS = {"task", "task.head", "target", "allow", *(f"data.{role}{mark}" for role in
         ("training", "calibration", "selection", "validation") for mark in ("", "?"))}  # fmt: skip


def module_of(cls: type) -> Path:
    return Path(inspect.getfile(cls))


@pytest.mark.parametrize("name", STAGES)
def test_name_is_path_is_class_is_test(name: str) -> None:
    cls = stages.get(name)
    path = Path("stages", *name.split(".")).with_suffix(".py")
    assert module_of(cls) == ROOT / "cpu_pipeline" / path
    assert cls.__name__ == "".join(part.capitalize() for part in name.replace("_", ".").split("."))
    assert (TESTS / path.parent / f"test_{path.name}").is_file()


@pytest.mark.parametrize("name", tasks.names())
def test_name_of_a_task_is_path_is_class_is_test(name: str) -> None:
    cls = tasks.get(name)
    path = Path("tasks", f"{name.replace('-', '_')}.py")
    assert module_of(cls) == ROOT / "cpu_pipeline" / path
    assert cls.__name__ == name.title().replace("-", "")
    assert (TESTS / path.parent / f"test_{path.name}").is_file()


@pytest.mark.parametrize("name", sources.names())
def test_name_of_a_source_is_path_is_class_is_first_field_is_test(name: str) -> None:
    cls = sources.get(name)
    assert module_of(cls) == ROOT / "cpu_pipeline" / "sources" / f"{name}.py"
    assert cls.__name__ == name.title()
    assert next(iter(cls.model_fields)) == name
    assert (TESTS / "sources" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", backends.names())
def test_a_backend_is_a_module_with_its_promises_and_a_test(name: str) -> None:
    backend = backends.get(name)
    assert inspect.getfile(backend) == str(ROOT / "cpu_pipeline" / "backends" / f"{name}.py")  # type: ignore[arg-type]
    assert isinstance(backend.PACKAGES, tuple) and backend.PACKAGES
    assert isinstance(backend.VERSION, int)
    assert list(inspect.signature(backend.load).parameters) == ["path", "head", "threads"]
    assert list(inspect.signature(backend.usage).parameters) == ["folder", "head"]
    first = (inspect.getdoc(backend) or "").splitlines()[0]
    assert first.endswith(".")
    assert (TESTS / "backends" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", STAGES)
def test_explains_itself_in_one_line(name: str) -> None:
    doc = stages.get(name).__doc__ or ""
    assert doc.endswith(".") and "\n" not in doc and doc[0].isupper()


@pytest.mark.parametrize(
    ("name", "cls"), list(json_schema.documented_classes()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_explains_every_option(name: str, cls: Any) -> None:
    said = field_docs.fields(cls)
    for field in cls.model_fields:
        assert said[field].strip(), f"{name}: {field} has no line under it"
        assert said[field].rstrip().endswith((".", ":")), f"{name}: {field}: {said[field]}"


@pytest.mark.parametrize("name", STAGES)
def test_takes_and_gives_what_somebody_knows(name: str) -> None:
    cls = stages.get(name)
    known = {*backends.names(), *NOT_MODELS, "torchscript", "fastpath", "pt2", "ipex"}
    for formats in cls.takes.values():
        assert formats and set(formats) <= known
        assert cls.internal or set(formats) & {*backends.names(), *NOT_MODELS}
    assert cls.optional <= set(cls.takes) and set(cls.through) <= set(cls.takes)
    for between in cls.through.values():
        assert stages.get(between).internal
    assert cls.unkeyed <= set(cls.model_fields)
    assert set(cls.reads) <= READS


@pytest.mark.parametrize("name", STAGES)
def test_promises_fit_together(name: str) -> None:
    cls = stages.get(name)
    assert isinstance(cls.version, int) and cls.version >= 1
    assert all("." not in key for key in cls.takes)
    if cls.online:
        assert cls.internal and not cls.takes
    if name.startswith("validate."):
        assert (cls.judge is not Stage.judge or cls.internal) and cls.unkeyed
        assert list(cls.takes)[:1] == ["candidate"]
    if cls.alone:
        assert cls.host is not Stage.host
        assert cls.reproducible, "what measures time says that it cannot come out the same"
    why = cls.reproducible
    assert not why or (why.endswith(".") and "\n" not in why and len(why) > 20)


@pytest.mark.parametrize("name", [n for n in STAGES if n.startswith("validate.") and not stages.get(n).internal])
def test_a_gate_must_be_able_to_fail_or_say_that_it_only_measures(name: str) -> None:
    if getattr(stages.get(name), "may_only_measure", False):
        assert not stages.get(name)().bounded  # type: ignore[attr-defined]  # every gate has it
        return
    with pytest.raises(ValueError, match="a gate must be able to fail"):
        stages.get(name)()


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_says_what_goes_in_and_what_comes_out(name: str) -> None:
    task = tasks.get(name)
    assert task.metrics and task.outputs and task.columns
    assert task.pipeline_tag and task.auto_class.startswith("Auto")
    assert isinstance(task.per_token, bool)
    assert tasks.get(name)()


def imported_by(program: str) -> set[str]:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    ).stdout  # fmt: skip
    return {name.partition(".")[0] for name in loaded.split()}


def test_importing_everything_imports_nothing_heavy() -> None:
    found = imported_by(
        "import pkgutil, importlib, cpu_pipeline\n"
        "for module in pkgutil.walk_packages(cpu_pipeline.__path__, 'cpu_pipeline.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    assert "cpu_pipeline" in found and not HEAVY & found


def test_making_every_stage_and_task_imports_nothing_heavy() -> None:
    found = imported_by(
        "from cpu_pipeline.recipe import json_schema\n"
        "for name, cls in json_schema.documented_classes():\n"
        "    try: made = cls()\n"
        "    except ValueError: continue\n"
        "    if hasattr(made, 'gives'): made.gives(), made.host(), made.asks()"
    )
    assert not HEAVY & found


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in HEAVY & imported_by("import numpy")


def test_needs_of_artifacts_are_spelled_as_the_system_spells_them() -> None:
    assert set(host.VNNI.split("|")) <= set(host.KNOWN)
    for sets in host.TARGETS.values():
        assert set(sets[1:]) <= set(host.KNOWN)
