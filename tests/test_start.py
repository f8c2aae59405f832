"""Starting is quick: help, plans and runs that are fully kept import no heavy library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import models
import pytest
from conftest import ROOT
from project import write_model
from stages.test_every_stage import HEAVY

from cpu_pipeline.recipe import package_data

TASK = "text-classification"
RECIPE = """\
model: {folder: model}
task: text-classification
data:
  calibration: {file: calibration.jsonl}
  validation: {file: validation.jsonl}
stages:
  - {id: float, use: export.onnx}
  - {id: int8, use: quantize.onnx, with: {mode: static}}
  - {id: accuracy, use: validate.accuracy, from: {reference: model}, with: {max_drop: 0.01}}
  - {id: speed, use: validate.latency, from: {reference: model}, with: {min_speedup: 1}}
"""
HOOK = """\
import atexit, os, sys

def tell(path=os.environ.pop("MODULES_TO", None)):  # taken away, so that children do not tell
    if path:
        with open(path, "a") as file:
            print(*sorted(sys.modules), file=file)

atexit.register(tell)
"""
Command = Callable[..., "set[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    write_model(path / "model")
    models.write_rows(path / "calibration.jsonl", TASK, 12, seed=1)
    models.write_rows(path / "validation.jsonl", TASK, 12, seed=2)
    (path / "toy.yaml").write_text(RECIPE)
    return path


@pytest.fixture
def imported(tmp_path: Path) -> Command:
    """Run the real command; return the packages that its own process had imported when it ended."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)

    def run(*arguments: object) -> set[str]:
        told = tmp_path / "modules"
        told.unlink(missing_ok=True)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hooks), str(ROOT)]), "MODULES_TO": str(told)}
        command = [sys.executable, "-m", "cpu_pipeline", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, env=env, cwd=tmp_path)
        [line] = told.read_text().splitlines()
        return {name.partition(".")[0] for name in line.split()}

    return run


def test_help_imports_next_to_nothing(imported: Command) -> None:
    found = imported("--help")
    assert "cpu_pipeline" in found
    assert not (HEAVY | {"pydantic", "jsonschema", "yaml", "psutil", "filelock"}) & found


def test_planning_imports_nothing_heavy(imported: Command, home: Path, tmp_path: Path) -> None:
    found = imported("plan", home / "toy.yaml", "--store", tmp_path / "store")
    assert "cpu_pipeline" in found and "yaml" in found
    assert not HEAVY & found
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("path", sorted(package_data.folder("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_planning_a_shipped_recipe_imports_nothing_heavy(path: Path, imported: Command, tmp_path: Path) -> None:
    assert not HEAVY & imported("plan", path, "--store", tmp_path / "store")


def test_a_run_that_is_kept_imports_nothing_heavy(imported: Command, home: Path, tmp_path: Path) -> None:
    run = ("run", home / "toy.yaml", "--store", tmp_path / "store", "--out", tmp_path / "out", "--until", "data")
    imported(*run)
    assert not HEAVY & imported(*run)


def test_a_run_that_is_kept_does_not_ask_the_remote(imported: Command, home: Path, tmp_path: Path) -> None:
    run = ("run", home / "toy.yaml", "--store", tmp_path / "store", "--out", tmp_path / "out", "--until", "data")
    assert "fsspec" in imported(*run, "--store-remote", "memory://none")
    assert not {"fsspec", "aiohttp", *HEAVY} & imported(*run, "--store-remote", "http://127.0.0.1:9/none")


def test_a_heavy_import_would_be_seen(imported: Command, tmp_path: Path) -> None:
    assert "numpy" not in imported("--version")
    hook = tmp_path / "hooks" / "sitecustomize.py"
    hook.write_text(HOOK + "import numpy\n")
    assert "numpy" in HEAVY & imported("--version")
