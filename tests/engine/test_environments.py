"""Environments beside the default one: made of pins, whole or not at all, and steps and artifacts that run in them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from conftest import ROOT

from cpu_pipeline import api, backends
from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.events import Event
from cpu_pipeline.engine import environments


def write_wheel(folder: Path, version: str) -> None:
    """Write a wheel of one module, by the book: PEP 427."""
    info = f"leftpad-{version}.dist-info"
    files = {
        "leftpad.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: leftpad\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def line(name: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{name},sha256={digest},{len(text)}\n"

    record = "".join(line(name, text) for name, text in files.items()) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"leftpad-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in (*files.items(), (f"{info}/RECORD", record)):
            wheel.writestr(name, text)


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder of pins, a place for environments, and an index that has one package."""
    shelf, folder = tmp_path / "shelf", tmp_path / "pins"
    shelf.mkdir()
    folder.mkdir()
    write_wheel(shelf, "1.2")
    (folder / "small.txt").write_text("# about: A small one.\n# warning: It is very small.\nLeftPad==1.2\n")
    monkeypatch.setattr(environments, "PINS", folder)
    monkeypatch.setenv("CPU_PIPELINE_ENVIRONMENTS", str(tmp_path / "made"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    environments.get.cache_clear()
    yield folder
    environments.get.cache_clear()


@pytest.mark.parametrize("name", environments.names())
def test_the_pins_we_ship_are_exact(name: str) -> None:
    here = environments.get(name)
    assert here.about and here.status and here.pins
    assert all(version and set(version) <= set("0123456789.abcpostrv") for version in here.pins.values())
    # What the worker's side of this package imports.
    assert {"pydantic", "pyyaml", "psutil", "filelock", "platformdirs", "numpy"} <= here.pins.keys()


def test_the_digest_is_of_the_pins_alone(pins: Path) -> None:
    before = environments.get("small")
    assert (before.about, before.warning, dict(before.pins)) == (
        "A small one.",
        "It is very small.",
        {"leftpad": "1.2"},
    )
    (pins / "small.txt").write_text("leftpad==1.2\n# another word\n")
    environments.get.cache_clear()
    assert environments.get("small").digest == before.digest
    (pins / "small.txt").write_text("leftpad==1.3\n")
    environments.get.cache_clear()
    assert environments.get("small").digest != before.digest


def test_one_that_is_not_there_says_how_to_make_it(pins: Path) -> None:
    with pytest.raises(BackendMissing, match=r"\(A small one\).*`cpu-pipeline env create small`"):
        environments.interpreter("small")
    with pytest.raises(RecipeError, match="did you mean `small`"):
        environments.interpreter("smal")
    assert environments.problems("small") == ["it is not installed; create it with `cpu-pipeline env create small`"]


def test_makes_one_finishes_what_is_half_made_and_tells_what_is_broken(pins: Path) -> None:
    told: list[str] = []
    folder = environments.create("small", told.append)
    here = environments.get("small")
    assert here.ready and folder == here.folder
    assert told[0].startswith("small: making") and told[-1] == "small: ready"
    code = "import leftpad; print(leftpad.VERSION)"
    assert subprocess.check_output([environments.interpreter("small").python, "-I", "-c", code], text=True) == "1.2\n"

    assert environments.create("small", told.append) == folder and told[-1] == "small: ready" and len(told) == 3

    # Half made: no marker, and a file of the package lost. It is made again from nothing.
    (folder / environments.MARKER).unlink()
    module = next(folder.rglob("leftpad.py"))
    module.unlink()
    assert not here.ready
    environments.create("small")
    assert here.ready and next(folder.rglob("leftpad.py")).is_file()

    # Whole by its marker, but a file is lost since: `check` tells, and that a worker does not start.
    next(folder.rglob("leftpad.py")).unlink()
    lacks, starts = environments.problems("small")
    assert lacks == "leftpad lacks leftpad.py"
    assert starts.startswith("a worker does not start in it: ModuleNotFoundError: No module named ")
    assert environments.remove("small") == [folder] and not folder.exists()


def test_pins_that_cannot_be_had_leave_nothing_that_looks_whole(pins: Path) -> None:
    (pins / "small.txt").write_text("leftpad==9\n")
    environments.get.cache_clear()
    with pytest.raises(BackendMissing, match=r"could not be created: .*leftpad==9.*its log is"):
        environments.create("small")
    assert not environments.get("small").ready


def test_two_at_once_make_one(pins: Path, tmp_path: Path) -> None:
    code = textwrap.dedent("""\
        import sys
        from pathlib import Path
        from cpu_pipeline.engine import environments
        environments.PINS = Path(sys.argv[1])
        environments.create("small", print)
    """)
    command = [sys.executable, "-c", code, str(pins)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    said = [child.communicate()[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert sum("ready" in text for text in said) == 1


def look_alike(pins: Path) -> Path:
    """Make an environment that is our own interpreter; it writes down each start."""
    here = environments.get("small")
    here.python.parent.mkdir(parents=True)
    starts = here.folder / "starts"
    paths = os.pathsep.join([p for p in sys.path if p])
    here.python.write_text(f'#!/bin/sh\necho start >> "{starts}"\nPYTHONPATH="{paths}" exec "{sys.executable}" "$@"\n')
    here.python.chmod(0o755)
    (here.folder / environments.MARKER).write_text("{}")
    return starts


def test_steps_and_artifacts_run_where_they_belong(pins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX model whose backend is in another environment: predictions, agreement and latency reach it there."""
    hook = tmp_path / "hook"
    hook.mkdir()
    # Workers are fresh processes: they learn of the moved backend as they start.
    (hook / "sitecustomize.py").write_text("import cpu_pipeline.backends.onnx as b; b.ENVIRONMENT = 'small'\n")
    monkeypatch.syspath_prepend(hook)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(backends.get("onnx"), "ENVIRONMENT", "small")
    starts = look_alike(pins)
    project = tmp_path / "project"
    models.make("distilbert", project / "model", "text-classification")
    models.write_rows(project / "validation.jsonl", "text-classification", 120)
    (project / "r.yaml").write_text(
        textwrap.dedent("""\
        model: {folder: model}
        task: text-classification
        data: {validation: {file: validation.jsonl}}
        stages:
          - {id: float, use: export.onnx}
          - {id: accuracy, use: validate.accuracy, from: {reference: model}, with: {metric: accuracy, max_drop: 0.1}}
          - {id: same, use: validate.agreement, from: {reference: model}, with: {max_difference: 0.001}}
          - {id: speed, use: validate.latency, from: {reference: model},
             with: {max_median: 10, calls: 2, rounds: 2, processes: 1}}
        """)
    )
    plan = api.plan(api.load_recipe(project / "r.yaml"))
    gone = environments.get("small").folder / environments.MARKER
    gone.unlink()
    with pytest.raises(BackendMissing, match="env create"):
        api.build(plan, tmp_path / "store", tmp_path / "out")
    made: list[str] = []
    monkeypatch.setattr(environments, "create", lambda name, _: made.append(name) or gone.write_text("{}"))
    events: list[Event] = []
    outcome = api.build(plan, tmp_path / "store", tmp_path / "out", create_envs=True, tell=events.append)
    assert made == ["small"]
    assert outcome.built.passed
    assert len(starts.read_text().split()) >= 3
    key: dict[str, Any] = json.loads((outcome.path / "manifest.json").read_text())["environments"]
    assert key["small"]["pins"] == environments.get("small").digest
    report = (outcome.path / "report.md").read_text()
    assert "It is very small." in report
    assert [e.why for e in events if e.what == "warning"] == [("It is very small.",)]
    # Fully kept, it needs the environment no more.
    gone.unlink()
    again = api.build(plan, tmp_path / "store", tmp_path / "out", create_envs=True)
    assert again.built.made == [] and made == ["small"]
