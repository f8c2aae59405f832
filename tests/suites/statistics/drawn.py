"""Draw what models get right on the same rows, with a true difference that is known."""

from __future__ import annotations

from typing import Any

import numpy as np

PARTS = np.array([0.2, 0.25, 1 / 3, 0.4, 0.5, 2 / 3, 0.8])
"""F1 that an answer with some of the right words may have."""
WHOLE = 0.6
"""Share of changed answers that are wholly right or wrong on one side."""
SIZE = WHOLE + (1 - WHOLE) * float(PARTS.mean())
"""Mean size of a change."""


def changes(rng: np.random.Generator, rows: int, flips: float, drop: float) -> Any:
    """Draw differences of F1, candidate less reference.

    Args:
        rng: draws them.
        rows: how many.
        flips: share of rows that change.
        drop: by how much the candidate is truly worse.
    """
    found = np.zeros(rows)
    changed = rng.random(rows) < flips
    count = int(changed.sum())
    sizes = np.where(rng.random(count) < WHOLE, 1.0, rng.choice(PARTS, count))
    lost = rng.random(count) < (1 + drop / (flips * SIZE)) / 2
    found[changed] = np.where(lost, -sizes, sizes)
    return found


def scores(differences: Any) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Make scores from 0 to 1 of both sides with these differences."""
    ours = [{"f1": max(0.0, float(one))} for one in differences]
    theirs = [{"f1": max(0.0, -float(one))} for one in differences]
    return ours, theirs


def mean(rows: Any, metric: str) -> float:
    """Average a metric of the rows."""
    return float(np.mean([row[metric] for row in rows]))
