"""How many rows a gate needs to show that a candidate keeps to an allowed drop, from a table of exact power."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

TABLE = Path(__file__).with_name("rows_needed.json")
"""Made by `python -m cpu_pipeline.bench.rows_needed`."""
POWER = 0.8
"""How often a candidate that is truly no worse should pass."""
MOST = 100_000_000
"""More rows than that nobody has."""


@cache
def read_table() -> dict[str, Any]:
    """Read the table: `drops`, `flips`, and `rows` as a list for each of `flips`."""
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def rows_needed(flips: float, drop: float, confidence: float = 0.95) -> int | None:
    """Return the rows with which a candidate that is no worse passes in four of five cases; None for more than MOST.

    Between the table's entries the normal approximation is scaled to its nearest entry, and so it is for another level.

    Args:
        flips: share of rows whose answer changes.
        drop: the allowed drop, as a difference.
        confidence: level of the gate.
    """
    if drop <= 0:
        return None
    found = read_table()
    line = _nearest(found["flips"], flips)
    column = _nearest(found["drops"], drop)
    exact = found["rows"][line][column]
    at = normal(found["flips"][line], found["drops"][column], found["power"], found["confidence"])
    rows = math.ceil(exact * normal(flips, drop, found["power"], confidence) / at)
    return rows if rows <= MOST else None


def _nearest(values: list[float], value: float) -> int:
    return min(range(len(values)), key=lambda i: abs(math.log(values[i] / max(value, 1e-9))))


def normal(flips: float, drop: float, power: float = POWER, confidence: float = 0.95) -> float:
    """Return the rows by the normal approximation; at least those that Tango's test needs where nothing flips."""
    alpha, beta = NormalDist().inv_cdf(confidence), NormalDist().inv_cdf(power)
    return max((alpha + beta) ** 2 * flips / drop**2, none_flipped(drop, confidence))


def none_flipped(drop: float, confidence: float = 0.95) -> float:
    """Return the rows of which none may flip: Tango's lower bound is then -z²/(n + z²)."""
    z = NormalDist().inv_cdf(confidence)
    return float(z * z * (1 / drop - 1))


def most_flips(rows: int, drop: float, confidence: float = 0.95) -> float:
    """Return the largest share of flipping rows with which so many rows are enough; 0 where they never are."""
    low, high = 0.0, 1.0
    if rows <= none_flipped(drop, confidence):
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        needed = rows_needed(middle, drop, confidence)
        low, high = (middle, high) if needed is not None and needed <= rows else (low, middle)
    return low
