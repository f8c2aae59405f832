"""Share tiny checkpoints and what is built from them: making each once keeps the tests fast."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import models
import pytest

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.tasks._base import Task

Built = Callable[..., Artifact]


def task_named(name: str) -> Task:
    """Make a task with its default options."""
    module = importlib.import_module(f"cpu_pipeline.tasks.{name.replace('-', '_')}")
    return getattr(module, name.title().replace("-", ""))()


def job_for(name: str, threads: int = 1, **parts: Any) -> Job:
    """Build by hand the job that the engine gives a stage of a recipe with this task."""

    def load(artifact: Artifact) -> Any:
        backend = importlib.import_module(f"cpu_pipeline.backends.{artifact.format}")
        return backend.load(artifact.path, job.task, threads)

    job = Job(**{"load": load, "timer": None, "task": task_named(name), "threads": threads, "isa": host.isa(), **parts})
    return job


@pytest.fixture(scope="session")
def job() -> Callable[..., Job]:
    return job_for


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the checkpoint of a kind and task, made once."""

    @cache
    def give(kind: str, task: str) -> Artifact:
        return Artifact("hf", models.make(kind, tmp_path_factory.mktemp("hf"), task), "", {})

    return give


@pytest.fixture(scope="session")
def exported(checkpoint: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the ONNX export of a kind and task, made once, with the stage's facts."""
    from cpu_pipeline.stages.export.onnx import ExportOnnx

    @cache
    def give(kind: str, task: str, **options: Any) -> Artifact:
        out = tmp_path_factory.mktemp("onnx")
        facts = ExportOnnx(**options).run({"model": checkpoint(kind, task)}, out, job_for(task))
        return Artifact("onnx", out, "", stored_facts(facts))

    return give


@pytest.fixture(scope="session")
def fused(exported: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the fused ONNX export of a kind and task, made once, with the stage's facts."""
    from cpu_pipeline.stages.fuse.onnx import FuseOnnx

    @cache
    def give(kind: str, task: str) -> Artifact:
        out = tmp_path_factory.mktemp("fused")
        facts = FuseOnnx().run({"model": exported(kind, task)}, out, job_for(task))
        return Artifact("onnx", out, "", stored_facts(facts))

    return give


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give an empty directory for a stage to fill."""
    path = tmp_path / "out"
    path.mkdir()
    return path
