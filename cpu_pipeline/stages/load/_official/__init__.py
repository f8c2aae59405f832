"""The official way of each task: transformers' own tokenizer, forward and post-processing, a row at a time."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from cpu_pipeline.stages.load._official._base import Official
    from cpu_pipeline.tasks._base import Task


def of(task: Task) -> Official | None:
    """Return the official way of a task: the module here that is named as the task's own; None where there is none."""
    package, _, name = type(task).__module__.rpartition(".")
    if package != "cpu_pipeline.tasks" or name not in {found.name for found in pkgutil.iter_modules(__path__)}:
        return None
    return cast("Official", importlib.import_module(f"{__name__}.{name}"))
