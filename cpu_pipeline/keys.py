"""What makes two runs of a stage the same run. The only file that decides it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cpu_pipeline import backends, environment, sources
from cpu_pipeline.core import host
from cpu_pipeline.environment import DEFAULT
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task

EPOCH = 1
"""Raise by one to forget every artifact ever built."""

ABSENT = "not installed"


@dataclass(frozen=True)
class Context:
    """The parts of a recipe that stages may read, besides data."""

    task: Task | None
    task_name: str | None
    """As recipes spell it."""
    isa: tuple[str, ...]
    """Instruction sets to build for."""
    threads: int
    allow: tuple[str, ...] = ()


def ingredients(
    use: str,
    stage: Stage,
    formats: Mapping[str, str],
    inputs: Mapping[str, str],
    data: Mapping[str, str],
    context: Context,
) -> dict[str, Any]:
    """List everything that may change what `stage.run` writes.

    Args:
        use: the stage's name.
        stage: the stage with its options.
        formats: input name -> format.
        inputs: input name -> content digest.
        data: role -> content digest of its rows.
        context: the recipe's task, target and permissions, of which only what the stage reads counts.
    """
    where = home(stage, formats)
    return {
        "epoch": EPOCH,
        "stage": use,
        "version": stage.version,
        "options": stage.model_dump(mode="json", exclude=set(stage.unkeyed)),
        "identity": stage.identity(sources.find),
        "inputs": dict(inputs),
        "data": dict(data),
        "task": _task(stage, context, where),
        "target": list(context.isa) if "target" in stage.reads else None,
        "allow": sorted(context.allow) if "allow" in stage.reads else None,
        "packages": {name: installed(name, where) for name in stage.packages},
        "backends": {name: _backend(name) for name in sorted(stage.backends(formats))},
        "environment": _pins(where),
        "host": _host(stage, context),
    }


def home(stage: Stage, formats: Mapping[str, str]) -> str:
    """Name the environment that runs the stage on inputs of these formats."""
    return stage.environment({name: backends.get(name).ENVIRONMENT for name in sorted(stage.backends(formats))})


def environments(stage: Stage, formats: Mapping[str, str]) -> set[str]:
    """Name every environment that running the stage takes: its own, and those of the backends it loads."""
    return {home(stage, formats), *(backends.get(name).ENVIRONMENT for name in stage.backends(formats))}


def packages(stage: Stage, formats: Mapping[str, str], task: Task | None) -> set[str]:
    """Name every distribution that running the stage takes from the default environment."""
    here = home(stage, formats) == DEFAULT
    needed = set(stage.packages) if here else set[str]()
    for name in stage.backends(formats):
        if backends.get(name).ENVIRONMENT == DEFAULT:
            needed |= set(backends.get(name).PACKAGES)
    if here and task is not None and "task" in stage.reads:
        needed |= set(task.packages)
    return needed


def made_with(needed: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """Name what a step's ingredients say that it and its backends ran on.

    Returns the distributions of the default environment with their versions, and the other environments' names.
    """
    packages: dict[str, str] = {}
    places = set[str]()
    for said in (needed, *needed.get("backends", {}).values()):
        if said.get("environment", DEFAULT) == DEFAULT:
            packages |= said.get("packages", {})
        else:
            places.add(said["environment"]["name"])
    return packages, places


def differences(old: Any, new: Any) -> list[str]:
    """Say in words what changed between two lists of ingredients, each thing once."""
    return list(dict.fromkeys(_differences(old, new, "")))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield f"{path}: {_short(old)} → {_short(new)}"
        return
    versions = path.rpartition(".")[2] == "packages"
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if versions and before != after:
            yield f"{key} {_short(before)} → {_short(after)}"
        elif not versions:
            yield from _differences(before, after, f"{path}.{key}" if path else key)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"


def _task(stage: Stage, context: Context, where: str) -> Any:
    if context.task is None or not {"task", "task.head"} & stage.reads:
        return None
    task = context.task
    name = context.task_name
    if "task" not in stage.reads:
        return {"use": name, "outputs": list(task.outputs)}
    return {
        "use": name,
        "version": task.version,
        "options": task.model_dump(mode="json"),
        "packages": {name: installed(name, where) for name in task.packages},
    }


def _backend(name: str) -> dict[str, Any]:
    module = backends.get(name)
    where = module.ENVIRONMENT
    versions = {package: installed(package, where) for package in module.PACKAGES}
    return {"version": module.VERSION, "packages": versions, "environment": _pins(where)}


def _pins(where: str) -> Any:
    """Name an environment, and for one that we make, its every package."""
    return where if where == DEFAULT else {"name": where, "pins": environment.read(where).digest}


def _host(stage: Stage, context: Context) -> Any:
    match stage.host():
        case "none":
            return None
        case "isa":
            return {"isa": list(host.isa())}
        case _:
            return {**host.machine(), "threads": context.threads}


@cache
def installed(distribution: str, where: str = DEFAULT) -> str:
    """Return a distribution's version in an environment, made or not, or say that there is none."""
    if where != DEFAULT:
        return environment.read(where).pins.get(environment.normal(distribution), ABSENT)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def missing(names: Sequence[str], where: str = DEFAULT) -> list[str]:
    """Name the distributions that an environment has not."""
    return sorted(name for name in names if installed(name, where) == ABSENT)
