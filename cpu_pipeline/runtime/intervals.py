"""How sure a measured difference is: bootstrap intervals, the same on every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
"""Resamples of a mean or a ratio of medians."""
FEWEST = 200
"""Fewest resamples of which bounds are told, twice over."""
AT_ONCE = 4_000_000
"""Numbers held at once; bounds memory at tens of MB."""
LARGE = 5000
"""Values above which the correction of BCa is too small to be worth its quadratic time."""
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A measured value and its bootstrap interval; NaN bounds where the samples tell none (a single row)."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Bound a mean by the bias-corrected and accelerated bootstrap (Efron 1987); equal values bound themselves."""
    import numpy as np
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    if len(sample) == 0:
        return Interval(math.nan, math.nan, math.nan)
    value = float(sample.mean())
    if len(sample) == 1:
        return Interval(value, math.nan, math.nan)
    if (sample == sample[0]).all():
        return Interval(float(sample[0]), float(sample[0]), float(sample[0]))
    settings = {"confidence_level": confidence, "n_resamples": RESAMPLES, "batch": max(1, AT_ONCE // len(sample))}
    for method in ("BCa", "percentile") if len(sample) <= LARGE else ("percentile",):
        with np.errstate(all="ignore"):
            found = bootstrap((sample,), np.mean, method=method, rng=np.random.default_rng(SEED), **settings)
        low, high = float(found.confidence_interval.low), float(found.confidence_interval.high)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(value, low, high)


def speed_up(reference: Any, candidate: Any, confidence: float = 0.95) -> Interval:
    """Bound how many times faster the candidate is: median seconds of the reference by median of the candidate.

    Both are seconds of shape (blocks, calls), measured in turns: block i of one right beside block i of the other.
    Calls of one block resemble each other, so blocks are drawn in pairs, and calls within each of them (a hierarchical
    bootstrap; Davison and Hinkley 1997, section 3.8).

    Raises:
        ValueError: they are not two-dimensional, have no calls, or not the same number of blocks.
    """
    import numpy as np

    slow, fast = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if slow.ndim != 2 or fast.ndim != 2 or len(slow) != len(fast) or not (slow.size and fast.size):
        raise ValueError(f"timings must be (blocks, calls) of as many blocks: {slow.shape} and {fast.shape}")
    value = float(np.median(slow) / np.median(fast))
    rng = np.random.default_rng(SEED)
    ratios = []
    step = max(1, AT_ONCE // (slow.size + fast.size))
    for first in range(0, RESAMPLES, step):
        blocks = rng.integers(0, len(slow), (min(step, RESAMPLES - first), len(slow)))
        ratios.append(_medians(slow, blocks, rng) / _medians(fast, blocks, rng))
    return Interval(value, *_bounds(np.concatenate(ratios), confidence))


def _medians(seconds: Any, blocks: Any, rng: np.random.Generator) -> Any:
    """Draw calls within the drawn blocks; return the median of each resample."""
    import numpy as np

    calls = rng.integers(0, seconds.shape[1], (*blocks.shape, seconds.shape[1]))
    return np.median(seconds[blocks[..., None], calls].reshape(len(blocks), -1), axis=1)


def _bounds(values: Any, confidence: float) -> tuple[float, float]:
    import numpy as np

    if len(values) < FEWEST // 2:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
