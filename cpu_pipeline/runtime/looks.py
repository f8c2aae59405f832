"""Looks at the rows in stages that are planned in advance, each of which may decide and so save the rest.

Each look spends a part of the error that the whole comparison may make (Lan and DeMets 1983), by the function of the
kind of O'Brien and Fleming: little at first, nearly everything at the last. The first look is at the first part of one
fixed permutation, which nobody who sees answers can choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

LOOKS = 4
"""A quarter, half, three quarters, and all of the rows."""
TOLERANCE = 2e-6
"""Of the integral of the normal distribution: four looks in 0.3 s, right to four digits."""


@cache
def quantiles(looks: int, alpha: float) -> tuple[float, ...]:
    """Return how many standard errors each of equally spaced looks asks for, so that all together err by `alpha`.

    Args:
        looks: how many.
        alpha: one-sided error of the whole, such as 0.05.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    found: list[float] = []
    before = 0.0
    for look in range(1, looks + 1):
        spent = 2 * norm.sf(norm.isf(alpha / 2) / (look / looks) ** 0.5)
        if not found:
            found.append(float(norm.isf(spent)))
        else:
            found.append(float(brentq(_excess, 0.0, 8.0, (tuple(found), looks, spent - before), xtol=1e-4)))
        before = spent
    return tuple(found)


def _excess(z: float, earlier: tuple[float, ...], looks: int, wanted: float) -> float:
    """Return by how much crossing `z` for the first time at this look is likelier than what it may spend."""
    import numpy as np
    from scipy.stats import multivariate_normal

    times = np.arange(1, len(earlier) + 2) / looks
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))

    def below(limits: Sequence[float]) -> float:
        size = len(limits)
        return float(
            multivariate_normal.cdf(
                limits,
                np.zeros(size),
                correlation[:size, :size],
                abseps=TOLERANCE,
                releps=TOLERANCE,
                rng=np.random.default_rng(0),
            )
        )

    return below(earlier) - below((*earlier, z)) - wanted


def order(rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None = None) -> list[int]:
    """Return the fixed permutation: positions of the rows, those of one cluster side by side.

    It hangs on SHA-256 of the ids alone (of a cluster: on its name), so that it is one on every machine.
    """
    if clusters is None:
        return sorted(range(len(rows)), key=lambda i: (_drawn(str(rows[i]["id"])), i))
    return sorted(range(len(rows)), key=lambda i: (_drawn(clusters[i]), clusters[i], i))


def _drawn(name: str) -> bytes:
    return hashlib.sha256(b"look:" + name.encode("utf-8", "surrogatepass")).digest()


def ends(count: int, looks: int, clusters: Sequence[str] | None = None) -> list[int]:
    """Return how many rows each look has seen in the end; no cluster is cut.

    Args:
        count: all rows.
        looks: how many looks.
        clusters: the cluster of each row, in the order of the permutation.
    """
    found = []
    for look in range(1, looks + 1):
        end = -(-count * look // looks)
        while clusters is not None and 0 < end < count and clusters[end] == clusters[end - 1]:
            end += 1
        found.append(end)
    return found
