"""By how much the answer to one row is worse than that of the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpu_pipeline.tasks._base import Task


@dataclass(frozen=True)
class Change:
    """How one row's own score differs between two sides."""

    metric: str | None
    """The first metric that differs, of this row alone; None where one row has no metric, as in a correlation."""
    reference: float | None
    candidate: float | None
    loss: float
    """By how much the candidate is worse; of a row without a metric, how far its numbers are apart."""


def change(candidate: Mapping[str, Any], reference: Mapping[str, Any], task: Task) -> Change:
    """Compare the scores of one row."""
    if candidate == reference:
        return Change(None, None, None, 0.0)
    known = False
    for metric in task.metrics_of():
        ours, theirs = (_of_one_row(task, side, metric) for side in (candidate, reference))
        if ours is None or theirs is None:
            continue
        known = True
        if ours != theirs:
            lost = ours - theirs if metric in task.lower_is_better else theirs - ours
            return Change(metric, theirs, ours, lost)
    return Change(None, None, None, 0.0 if known else _moved(candidate, reference))


def loss(candidate: Mapping[str, Any], reference: Mapping[str, Any], task: Task) -> float:
    """Say by how much one row is worse: in the first metric that differs, of this row alone."""
    return change(candidate, reference, task).loss


def _of_one_row(task: Task, scores: Mapping[str, Any], metric: str) -> float | None:
    """Compute a metric of one row; None where one row has none, as in a correlation."""
    try:
        value = task.aggregate([scores], metric)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return value if math.isfinite(value) else None


def _moved(candidate: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Add up how far the numbers of two scores are apart."""
    pairs = ((value, reference.get(key)) for key, value in candidate.items())
    return sum(abs(a - b) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float))
