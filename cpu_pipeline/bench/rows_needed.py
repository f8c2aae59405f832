"""Make the table of how many rows a gate needs: exact power of Tango's test, by enumeration.

`python -m cpu_pipeline.bench.rows_needed` writes `cpu_pipeline/runtime/rows_needed.json`, which `check`, `plan` and
docs/gates.md read. It takes some minutes.
"""

from __future__ import annotations

import json
import math
from typing import Any

from cpu_pipeline.runtime import rows_needed, tango

DROPS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
"""Allowed drops of the table's columns."""
FLIPS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of rows whose answer changes, of the table's lines."""
POWER = 0.8
CONFIDENCE = 0.95
TAIL = 6.0
"""Standard deviations of the number of flips that are enumerated."""
BACK, TRIED = 0.04, 500
"""The power goes up and down with whole numbers of rows: so far below where it is met the first such number is looked
for, a share of the rows, in so many tries."""


def power(rows: int, flips: float, drop: float, confidence: float = CONFIDENCE) -> float:
    """Return how often Tango's test passes a candidate that is truly no worse.

    Args:
        rows: rows of the comparison.
        flips: share of rows of which just one of both sides is right; half of them fall to each side.
        drop: the allowed drop.
        confidence: level of the test.
    """
    import numpy as np
    from scipy.stats import binom, norm

    z = float(norm.isf(1 - confidence))
    middle, spread = rows * flips, math.sqrt(rows * flips * (1 - flips))
    first, last = math.floor(middle - TAIL * spread - 2), math.ceil(middle + TAIL * spread + 2)
    changed = np.arange(max(0, first), min(rows, last) + 1)
    least = _least_gained(changed, rows, drop, z)
    return float((binom.pmf(changed, rows, flips) * binom.sf(least - 1, changed, 0.5)).sum())


def _least_gained(changed: Any, rows: int, drop: float, z: float) -> Any:
    """Return the fewest of the changed rows that the candidate has to have right to pass: more is always better."""
    import numpy as np

    low, high = np.zeros(len(changed), dtype=np.int64), changed + 1
    while (low < high).any():
        middle = (low + high) // 2
        passed = tango.statistics(middle, changed - middle, rows, -drop) >= z
        searching = low < high
        high = np.where(searching & passed, middle, high)
        low = np.where(searching & ~passed, middle + 1, low)
    return low


def needed(flips: float, drop: float, wanted: float = POWER, confidence: float = CONFIDENCE) -> int:
    """Return the fewest rows whose power is at least `wanted`."""
    guess = max(2, int(rows_needed.normal(flips, drop, wanted, confidence)))
    low, high = 1, guess
    while power(high, flips, drop, confidence) < wanted:
        low, high = high, math.ceil(high * 1.2) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, flips, drop, confidence) >= wanted:
            high = middle
        else:
            low = middle
    first = max(1, math.floor(high * (1 - BACK)))
    step = max(1, (high - first) // TRIED)
    return next((n for n in range(first, high, step) if power(n, flips, drop, confidence) >= wanted), high)


def table() -> dict[str, Any]:
    """Compute the whole table."""
    rows = [[needed(flips, drop) for drop in DROPS] for flips in FLIPS]
    return {"power": POWER, "confidence": CONFIDENCE, "drops": DROPS, "flips": FLIPS, "rows": rows}


def main() -> None:
    """Write the table."""
    text = json.dumps(table(), indent=1).replace("\n   ", " ")
    rows_needed.TABLE.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
