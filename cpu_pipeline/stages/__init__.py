"""Steps that a recipe can use: one file each, whose path below this folder is the step's `use:` (`quantize.onnx`)."""

from __future__ import annotations

from functools import cache

from cpu_pipeline.core.registry import Registry
from cpu_pipeline.stages._base import Count, Facts, Figure, Inputs, Job, Stage, Timer, Verdict

__all__ = ["Count", "Facts", "Figure", "Inputs", "Job", "Stage", "Timer", "Verdict", "get", "names", "registry"]

registry = Registry(__name__, "stage")


def names(internal: bool = False) -> list[str]:
    """List every stage that a recipe can use; with `internal`, also those that only the planner adds."""
    return [name for name in registry.names() if internal or not get(name).internal]


@cache
def get(name: str) -> type[Stage]:
    """Import the stage called `name`.

    Raises:
        RecipeError: there is none.
    """
    stage: type[Stage] = registry.implementation(name, Stage)
    return stage
