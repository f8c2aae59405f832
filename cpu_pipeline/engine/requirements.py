"""Environments and distributions that running a step needs."""

from __future__ import annotations

from collections.abc import Mapping

from cpu_pipeline import backends
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task


def home_environment(stage: Stage, formats: Mapping[str, str]) -> str:
    """Name the environment that runs the stage on inputs of these formats."""
    return stage.environment({name: backends.get(name).ENVIRONMENT for name in sorted(stage.backends(formats))})


def environments_of(stage: Stage, formats: Mapping[str, str]) -> set[str]:
    """Name every environment that running the stage takes: its own, and those of the backends it loads."""
    return {home_environment(stage, formats), *(backends.get(name).ENVIRONMENT for name in stage.backends(formats))}


def packages_of(stage: Stage, formats: Mapping[str, str], task: Task | None) -> set[str]:
    """Name every distribution that running the stage takes from the default environment."""
    here = home_environment(stage, formats) == DEFAULT
    needed = set(stage.packages) if here else set[str]()
    for name in stage.backends(formats):
        if backends.get(name).ENVIRONMENT == DEFAULT:
            needed |= set(backends.get(name).PACKAGES)
    if here and task is not None and "task" in stage.reads:
        needed |= set(task.packages)
    return needed
