"""Some training rows, as padded batches of tokens: what importance and repair look at."""

from __future__ import annotations

from collections.abc import Sequence

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.tasks._base import Feature, Row, Task

SHORTEST = 4
"""Tokens that a row has at least, on average: bounds how many rows are encoded."""


def some(job: Job, tokens: int, seed: int) -> tuple[Task, list[Row]]:
    """Draw training rows, in random order: enough for that many tokens.

    Raises:
        RecipeError: the recipe has no task or no training rows.
    """
    import numpy as np

    if job.task is None:
        raise RecipeError("pruning: the recipe names no task; it says how rows become tokens")
    rows = job.task.read_rows(job.data["training"])
    if not rows:
        raise RecipeError("data.training: no rows; name data that has some")
    order = np.random.default_rng(seed).permutation(len(rows))
    return job.task, [rows[int(i)] for i in order[: max(8, tokens // SHORTEST)]]


def limited(features: Sequence[Feature], tokens: int) -> list[int]:
    """Take numbers of features, the first first, until they have that many tokens."""
    taken: list[int] = []
    total = 0
    for number, feature in enumerate(features):
        if taken and total + feature.length > tokens:
            break
        taken.append(number)
        total += feature.length
    return taken


def batches(numbers: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Group numbers by size, the largest first, into batches of at most `budget` tokens with padding."""
    found: list[list[int]] = []
    for number in sorted(numbers, key=lambda i: -sizes[i]):
        if found and (len(found[-1]) + 1) * sizes[found[-1][0]] <= budget:
            found[-1].append(number)
        else:
            found.append([number])
    return found
