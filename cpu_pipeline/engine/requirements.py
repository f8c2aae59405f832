"""The environments and distributions that a step needs."""

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
    """Name every environment that the stage needs: its own, and those of the backends it loads."""
    return {home_environment(stage, formats), *(backends.get(name).ENVIRONMENT for name in stage.backends(formats))}


def packages_of(stage: Stage, formats: Mapping[str, str], task: Task | None) -> set[str]:
    """Name every distribution that the stage needs in the default environment.

    Args:
        stage: the stage with its options.
        formats: input name -> format; they decide which backends the stage loads.
        task: the recipe's task, which has packages of its own.
    """
    local = home_environment(stage, formats) == DEFAULT
    needed = set(stage.packages) if local else set[str]()
    for name in stage.backends(formats):
        if backends.get(name).ENVIRONMENT == DEFAULT:
            needed |= set(backends.get(name).PACKAGES)
    if local and task is not None and "task" in stage.reads:
        needed |= set(task.packages)
    return needed
