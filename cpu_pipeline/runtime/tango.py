"""Tango's score interval for the difference of two paired proportions: two models, right or wrong on the same rows.

T. Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
Statistics in Medicine 17 (1998), 891-908. It keeps its level with few differing rows, and has a width where none
differs; Wald's interval does neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STEPS = 60
"""Halvings of [-1, 1]: more digits than a float of this size has."""


def lower(gained: int, lost: int, rows: int, z: float) -> float:
    """Return the one-sided lower bound of the difference in the share of right answers, candidate less reference.

    Args:
        gained: rows that only the candidate has right.
        lost: rows that only the reference has right.
        rows: all rows.
        z: quantile of the normal distribution: 1.645 for one-sided 95 %, 1.960 for one side of a two-sided 95 %.
    """
    if rows == 0:
        return math.nan
    low, high = -1.0, (gained - lost) / rows
    for _ in range(STEPS):
        middle = (low + high) / 2
        if statistic(gained, lost, rows, middle) >= z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def upper(gained: int, lost: int, rows: int, z: float) -> float:
    """Return the one-sided upper bound: what is gained of one side is lost of the other."""
    return -lower(lost, gained, rows, z)


def statistic(gained: int, lost: int, rows: int, difference: float) -> float:
    """Return how many standard errors the observed difference lies above a supposed one; it falls as that rises."""
    above = gained - lost - rows * difference
    a, b = 2 * rows, -gained - lost + (2 * rows - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    spread = rows * (2 * share + difference * (1 - difference))
    if spread <= 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(spread)


def statistics(gained: np.ndarray[Any, Any], lost: np.ndarray[Any, Any], rows: int, difference: float) -> Any:
    """Compute `statistic` of many results of one number of rows at once."""
    import numpy as np

    above = gained - lost - rows * difference
    a, b = 2 * rows, -gained - lost + (2 * rows - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    spread = rows * (2 * share + difference * (1 - difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(above == 0, 0.0, np.copysign(np.inf, above))
        return np.where(spread > 0, above / np.sqrt(np.maximum(spread, 0.0)), far)
