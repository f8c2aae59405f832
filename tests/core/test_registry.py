"""A name in a recipe is a module in this package or of another distribution; nothing else is needed to add one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.recipe import json_schema
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.tasks.question_answering import QuestionAnswering

PLUGIN = ROOT / "tests" / "plugin"


def test_names_are_paths() -> None:
    files = {
        ".".join(path.relative_to(ROOT / "cpu_pipeline" / "stages").with_suffix("").parts)
        for path in (ROOT / "cpu_pipeline" / "stages").rglob("*.py")
        if not any(part.startswith("_") for part in path.with_suffix("").parts)
    }
    assert set(stages.names(internal=True)) == files
    assert stages.get("quantize.onnx") is QuantizeOnnx
    assert tasks.get("question-answering") is QuestionAnswering


def test_internal_stages_are_not_offered() -> None:
    assert {
        "fetch",
        "predict",
        "load.model",
        "load.rows",
        "load.apart",
        "load.few",
        "validate.look",
        "quantize.sensitivity",
        "load.fidelity",
        "load.kept",
    } == set(stages.names(internal=True)) - set(stages.names())


def test_sources_are_offered_for_what_they_have() -> None:
    assert sources.names("model") == ["folder", "hub"]
    assert sources.names("tokenizer") == ["folder", "hub"]
    assert sources.names("data") == ["file", "hub"]


@pytest.mark.parametrize(
    ("look", "name", "says"),
    [
        (stages.get, "quantise.onnx", "no stage is called `quantise.onnx` (did you mean `quantize.onnx`?)"),
        (tasks.get, "question_answering", "(did you mean `question-answering`?)"),
        (sources.get, "hubb", "no source is called `hubb` (did you mean `hub`?); there are: file, folder"),
        (backends.get, "onx", "no backend is called `onx` (did you mean `onnx`?)"),
        (backends.get, "_external", "no backend is called `_external`"),
        (stages.get, "os", "no stage is called `os`"),
    ],
)  # fmt: skip
def test_unknown_names_say_what_there_is(look: object, name: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        look(name)  # type: ignore[operator]  # one of the registry's functions
    assert says in str(caught.value) and "; there are: " in str(caught.value)


def test_lists_every_class_once() -> None:
    found = [cls for _, cls in json_schema.documented_classes()]
    assert len(found) == len(set(found))
    names = [name for name, _ in json_schema.documented_classes()]
    assert set(stages.names(True)) | set(tasks.names()) <= set(names)


def outside(program: str) -> list[str]:
    """Run a program where the distribution of tests/plugin is installed too."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


def test_another_distribution_adds_stages_with_nothing_but_entry_points(tmp_path: Path) -> None:
    program = """
from cpu_pipeline import stages
from cpu_pipeline.recipe import reader
print(stages.get("faulty.copy").__name__, "faulty.copy" in stages.names())
known = reader.the_schema()["definitions"]
print("stage.faulty.copy" in known, "faulty.copy" in known["Step"]["properties"]["use"]["enum"])
print(len(reader.check_options("faulty.copy", {"txet": 1}, ())))
"""
    assert outside(program) == ["FaultyCopy", "True", "True", "True", "1"]
    assert "faulty.copy" not in stages.names()
