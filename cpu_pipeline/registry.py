"""From a name in a recipe to a module in this package. The file tree is the registry; entry points add outside ones."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, cast

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.backend import Backend
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.source import Source
from cpu_pipeline.stage import Stage
from cpu_pipeline.task import Task


@cache
def _modules(folder: ModuleType) -> dict[str, str]:
    """Map each name to its module by walking file names; imports nothing but the folders."""
    prefix = folder.__name__ + "."
    found = {
        m.name.removeprefix(prefix): m.name
        for m in pkgutil.walk_packages(folder.__path__, prefix)
        if not m.ispkg and not m.name.rpartition(".")[2].startswith("_")
    }
    return found | {point.name: point.value for point in outside(folder.__name__.rpartition(".")[2])}


@cache
def outside(kind: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """List what other distributions add: entry points of the groups `cpu_pipeline.stages`, `.tasks`, ...."""
    return tuple(importlib.metadata.entry_points(group=f"cpu_pipeline.{kind}"))


def _module(folder: ModuleType, kind: str, name: str) -> ModuleType:
    known = _modules(folder)
    if name not in known:
        there = ", ".join(sorted(known))
        raise RecipeError(f"no {kind} is called `{name}`{did_you_mean(name, known)}; there are: {there}")
    return importlib.import_module(known[name])


def _class(module: ModuleType, base: Any) -> Any:
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    [found] = [c for c in own if issubclass(c, base) and not getattr(c, "__abstractmethods__", None)]
    return found


def stage_names(internal: bool = False) -> list[str]:
    """List every stage a recipe can use; the graph's own ones too when `internal`."""
    return sorted(name for name in _modules(stages) if internal or not stage_class(name).internal)


@cache
def stage_class(name: str) -> type[Stage]:
    """Import the one module called `name` (`quantize.onnx`) and return the stage it defines."""
    found: type[Stage] = _class(_module(stages, "stage", name), Stage)
    return found


@cache
def stage_name(stage: type[Stage]) -> str:
    """Return the name a recipe uses for this stage."""
    return next(name for name, module in _modules(stages).items() if module == stage.__module__)


def task_names() -> list[str]:
    """List every task, as recipes spell it."""
    return sorted(name.replace("_", "-") for name in _modules(tasks))


@cache
def task_class(name: str) -> type[Task]:
    """Return the task called `name` (`question-answering`)."""
    known = {n.replace("_", "-"): n for n in _modules(tasks)}
    if name not in known:
        there = ", ".join(sorted(known))
        raise RecipeError(f"no task is called `{name}`{did_you_mean(name, known)}; there are: {there}")
    found: type[Task] = _class(_module(tasks, "task", known[name]), Task)
    return found


@cache
def task_name(task: type[Task]) -> str:
    """Return the name a recipe uses for this task."""
    return next(name for name in task_names() if task_class(name) is task)


def source_names(want: str) -> list[str]:
    """List every source that `want` (model, tokenizer, data) can come from."""
    return sorted(name for name in _modules(sources) if want in source_class(name).wants)


@cache
def source_class(name: str) -> type[Source]:
    """Return the source whose key in YAML is `name` (`hub`, `folder`, `file`)."""
    found: type[Source] = _class(_module(sources, "source", name), Source)
    return found


def formats() -> list[str]:
    """List every format that a backend runs."""
    return sorted(_modules(backends))


@cache
def backend(artifact_format: str) -> Backend:
    """Import the module that runs this format."""
    return cast(Backend, _module(backends, "backend", artifact_format))


def all_classes() -> Iterator[tuple[str, type[Any]]]:
    """Yield the name and class of every stage, task and source, for generated files."""
    yield from ((name, stage_class(name)) for name in sorted(_modules(stages)))
    yield from ((name, task_class(name)) for name in task_names())
    yield from ((name, source_class(name)) for name in sorted(_modules(sources)))
