"""How sure the difference of two models is that answered the same rows: one-sided bounds, the same on every run.

Right or wrong scores have Tango's interval. Means of other row scores have the paired bootstrap, bias-corrected and
accelerated (BCa; Efron, Better bootstrap confidence intervals, JASA 82 (1987), 171-185). Metrics of the whole set of
rows are computed anew on resamples. Rows that belong together are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cpu_pipeline.runtime import tango

if TYPE_CHECKING:
    import numpy as np

Rows = Sequence[Mapping[str, Any]]
"""Per-row scores as `Score.rows` has them."""
Method = Literal["identical", "tango", "bca", "resampled"]
"""How bounds were made; `resampled` computes a metric anew on each resample."""

MEANS = (2_000, 10_000)
"""Resamples of a mean, at least and at most."""
MEANS_WORK = 20_000_000
"""Numbers drawn in all for a mean; decides between these two."""
MOST, FEWEST = 1000, 200
"""Resamples of a metric that is no mean, where each is computed anew."""
WORK = 1_500_000
"""Rows drawn in all for such a metric."""
AT_ONCE = 4_000_000
"""Numbers held at once; bounds memory at tens of MB."""
DELETED = 100
"""Groups of rows that are left out in turn, to find the acceleration of a metric that is no mean."""
BEYOND = 10
"""Fewest resamples beyond a bound; a level that has fewer is extrapolated from one that has so many."""
SEED = 0


@dataclass(frozen=True)
class Bounds:
    """The difference of a metric, candidate less reference, and its one-sided bounds."""

    value: float
    lower: tuple[float, ...]
    """For each level that was asked."""
    upper: tuple[float, ...]
    method: Method
    deviation: float
    """Standard deviation of the difference of one row: the standard error of `value` times the root of the rows."""
    gained: int | None = None
    """Rows whose score is higher; None where rows have no score of their own."""
    lost: int | None = None
    """Rows whose score is lower."""


def compare(
    candidate: Rows,
    reference: Rows,
    metric: str,
    aggregate: Callable[[Any, str], float],
    levels: Sequence[float],
    *,
    packed: tuple[Any, Any] = (None, None),
    clusters: Sequence[str] | None = None,
    identical: bool = False,
) -> Bounds:
    """Bound candidate - reference in one metric, both of the same rows in the same order.

    Args:
        candidate: scores of each row.
        reference: scores of each row.
        metric: its name; one that is in the rows is the mean of them.
        aggregate: computes the metric of some rows.
        levels: confidence of each one-sided bound that is asked, 0.5 to 1.
        packed: both sides as `Task.packed` has them, from which rows are drawn more quickly.
        clusters: the cluster of each row; rows of one are drawn together. None for rows that stand alone.
        identical: the predictions are the same byte for byte, so that the difference is 0 and no sample of anything.

    Raises:
        ValueError: they have not as many rows.
    """
    if len(candidate) != len(reference):
        raise ValueError(f"{len(candidate)} rows of the candidate and {len(reference)} of the reference")
    known = [i for i in range(len(candidate)) if metric in candidate[i] and metric in reference[i]]
    if identical and candidate:
        same = 0.0 if math.isfinite(aggregate(candidate, metric)) else math.nan
        return Bounds(same, (same,) * len(levels), (same,) * len(levels), "identical", 0.0, 0, 0)
    if known:
        pairs = [(float(candidate[i][metric]), float(reference[i][metric])) for i in known]
        own = None if clusters is None else [clusters[i] for i in known]
        return _of_means(pairs, own, levels)
    return _resampled(candidate, reference, metric, aggregate, levels, packed, clusters)


def _nothing(levels: Sequence[float], value: float = math.nan) -> Bounds:
    return Bounds(value, (math.nan,) * len(levels), (math.nan,) * len(levels), "bca", math.nan)


def _of_means(pairs: Sequence[tuple[float, float]], clusters: Sequence[str] | None, levels: Sequence[float]) -> Bounds:
    """Bound the mean of differences of rows."""
    import numpy as np

    sides = np.asarray(pairs, dtype=np.float64)
    differences = sides[:, 0] - sides[:, 1]
    alone = clusters is None or len(set(clusters)) == len(clusters)
    gained, lost, count = int((differences > 0).sum()), int((differences < 0).sum()), len(differences)
    shares = bool(((sides >= 0) & (sides <= 1)).all())
    if (alone and bool(np.isin(sides, (0.0, 1.0)).all())) or (shares and not gained and not lost):
        return _by_tango(gained, lost, count, levels)
    value = float(differences.mean())
    if not gained and not lost:
        return Bounds(value, (value,) * len(levels), (value,) * len(levels), "bca", 0.0, 0, 0)
    unit = 1.0 if shares else float(np.abs(differences).max())
    sums, sizes = _sums(differences, None if alone else clusters)
    lower, upper, deviation = _bca_of_ratio(sums, sizes, unit, levels)
    return Bounds(value, lower, upper, "bca", deviation, gained, lost)


def _by_tango(gained: int, lost: int, count: int, levels: Sequence[float]) -> Bounds:
    from statistics import NormalDist

    value = (gained - lost) / count
    zs = [NormalDist().inv_cdf(level) for level in levels]
    return Bounds(
        value,
        tuple(tango.lower(gained, lost, count, z) for z in zs),
        tuple(tango.upper(gained, lost, count, z) for z in zs),
        "tango",
        math.sqrt(max((gained + lost) / count - value * value, 0.0)),
        gained,
        lost,
    )


def _sums(differences: np.ndarray[Any, Any], clusters: Sequence[str] | None) -> tuple[Any, Any]:
    """Add up the rows of each cluster: sums and numbers of rows."""
    import numpy as np

    if clusters is None:
        return differences, np.ones(len(differences))
    _, owner = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return np.bincount(owner, weights=differences), np.bincount(owner).astype(np.float64)


def _bca_of_ratio(
    sums: Any, sizes: Any, unit: float, levels: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Bound a sum by a number of rows, with clusters drawn as wholes.

    Few rows that differ tell little of how many more might. Two rows are added that no sample shows, one that the
    candidate wins by `unit` and one that it loses (as Agresti and Min add to Wald's interval, Statistics in Medicine 24
    (2005), 729-740). Without them a candidate whose true drop is the allowed one passes 6 to 8 % of the gates on few
    hundred rows of which 2 % flip; with them 4.5 to 5.5 % (tests/suites/statistics).

    Equal clusters are drawn as one kind, by their numbers, which is the same and needs a fraction of the time.
    """
    import numpy as np

    sums, sizes = np.append(sums, (unit, -unit)), np.append(sizes, (1.0, 1.0))
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    drawn, of = kinds[:, 0], kinds[:, 1]
    total = int(counts.sum())
    resamples = int(np.clip(MEANS_WORK // len(kinds), *MEANS))
    rng = np.random.default_rng(SEED)
    found = []
    step = max(1, AT_ONCE // len(kinds))
    for first in range(0, resamples, step):
        times = rng.multinomial(total, counts / total, size=min(step, resamples - first))
        # Not by a product of matrices: its sums are those of a BLAS, and follow the number of threads.
        found.append((times * drawn).sum(axis=1) / (times * of).sum(axis=1))
    center = float((counts * drawn).sum() / (counts * of).sum())
    pull = drawn - center * of
    squares = float((counts * pull**2).sum())
    acceleration = float((counts * pull**3).sum()) / (6 * squares**1.5)
    rows = float((counts * of).sum())
    lower, upper = _ends(np.concatenate(found), center, acceleration, levels)
    return lower, upper, math.sqrt(squares / rows)


def _resampled(
    candidate: Rows,
    reference: Rows,
    metric: str,
    aggregate: Callable[[Any, str], float],
    levels: Sequence[float],
    packed: tuple[Any, Any],
    clusters: Sequence[str] | None,
) -> Bounds:
    """Bound the difference of a metric that is no mean of rows."""
    import numpy as np

    value = aggregate(candidate, metric) - aggregate(reference, metric)
    if len(candidate) < 2 or not math.isfinite(value):
        return _nothing(levels, value)
    members = _members(len(candidate), clusters)

    def difference(positions: Any) -> float:
        sides = (_drawn(*side, positions) for side in zip((candidate, reference), packed, strict=True))
        ours, theirs = (aggregate(side, metric) for side in sides)
        return ours - theirs

    rng = np.random.default_rng(SEED)
    resamples = min(MOST, max(FEWEST, WORK // len(candidate)))
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(resamples))
    found = np.array([difference(np.concatenate([members[i] for i in one])) for one in drawn])
    # A draw on which the metric is not defined (a correlation with a constant) says nothing about the others.
    found = found[np.isfinite(found)]
    if len(found) < FEWEST // 2:
        return _nothing(levels, value)
    lower, upper = _ends(found, value, _acceleration(members, difference), levels)
    deviation = float(found.std(ddof=1)) * math.sqrt(len(candidate))
    return Bounds(value, lower, upper, "resampled", deviation)


def _drawn(rows: Rows, packed: Any, positions: Any) -> Any:
    return [rows[i] for i in positions.tolist()] if packed is None else packed.take(positions)


def _members(count: int, clusters: Sequence[str] | None) -> list[Any]:
    """List the positions of each cluster, in the order in which they come."""
    import numpy as np

    if clusters is None:
        return list(np.arange(count).reshape(-1, 1))
    found: dict[str, list[int]] = {}
    for position, cluster in enumerate(clusters):
        found.setdefault(cluster, []).append(position)
    return [np.array(positions) for positions in found.values()]


def _acceleration(members: Sequence[Any], difference: Callable[[Any], float]) -> float:
    """Estimate how the spread of a metric moves with it, by leaving out one group of rows after another."""
    import numpy as np

    groups = min(DELETED, len(members))
    left = []
    for group in range(groups):
        kept = [one for number, one in enumerate(members) if number % groups != group]
        left.append(difference(np.concatenate(kept)) if kept else math.nan)
    pull = np.nanmean(left) - np.array(left) if np.isfinite(left).any() else np.zeros(1)
    pull = pull[np.isfinite(pull)]
    squares = float((pull**2).sum())
    return float((pull**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def _ends(
    found: Any, value: float, acceleration: float, levels: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return BCa's lower and upper bound at each level."""
    import numpy as np
    from scipy.stats import norm

    found = np.sort(found)
    below = float(((found < value).mean() + (found <= value).mean()) / 2)
    bias = float(norm.ppf(np.clip(below, 1 / len(found), 1 - 1 / len(found))))

    def end(z: float) -> float:
        moved = bias + (bias + z) / max(1 - acceleration * (bias + z), 0.1)
        share = float(norm.cdf(moved))
        fewest = BEYOND / len(found)
        if fewest <= share <= 1 - fewest:
            return float(np.quantile(found, share))
        # So far out there are no resamples: go on from the last that are, as far as a normal distribution does.
        last = float(norm.ppf(fewest if share < fewest else 1 - fewest))
        known = float(np.quantile(found, norm.cdf(last)))
        middle = float(np.median(found))
        return middle + (known - middle) * moved / last

    zs = [float(norm.ppf(level)) for level in levels]
    return tuple(end(-z) for z in zs), tuple(end(z) for z in zs)
