"""Bounds of paired differences: the method fits the scores, and rows that belong together are drawn together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cpu_pipeline.runtime import paired, tango


def _share(rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """Average the rows' metric where it stands in them; otherwise take the ratio of two sums."""
    if metric in rows[0]:
        return sum(row[metric] for row in rows) / len(rows)
    return sum(row["hits"] for row in rows) / sum(row["of"] for row in rows)


def _compare(candidate: Any, reference: Any, metric: str = "f1", **options: Any) -> paired.Bounds:
    return paired.compare(candidate, reference, metric, _share, [0.95, 0.975], **options)


def _f1(values: Any) -> list[dict[str, float]]:
    return [{"f1": float(value)} for value in values]


def test_right_or_wrong_has_tango_s_interval() -> None:
    found = _compare(_f1([1] * 10 + [0] * 12 + [1] * 850), _f1([0] * 10 + [1] * 12 + [1] * 850))
    assert (found.method, found.gained, found.lost) == ("tango", 10, 12)
    assert found.lower[0] == pytest.approx(-0.01175, abs=5e-6)
    assert found.upper[1] == pytest.approx(tango.upper(10, 12, 872, 1.959964))


def test_identical_predictions_have_no_interval_and_unflipped_rows_have() -> None:
    rows = _f1([0.0, 0.3, 1.0] * 100)
    same = _compare(rows, rows, identical=True)
    assert (same.method, same.value, same.lower, same.upper) == ("identical", 0, (0, 0), (0, 0))
    found = _compare(rows, rows)
    assert found.method == "tango" and found.lower[0] == pytest.approx(tango.lower(0, 0, 300, 1.6448536))


def test_a_mean_s_bounds_are_near_the_textbook_s() -> None:
    rng = np.random.default_rng(1)
    base = rng.random(2000)
    changed = np.where(rng.random(2000) < 0.2, rng.random(2000), base)
    found = _compare(_f1(changed), _f1(base))
    difference = changed - base
    error = difference.std(ddof=1) / 2000**0.5
    assert found.method == "bca" and found.value == pytest.approx(difference.mean())
    assert found.lower[0] == pytest.approx(difference.mean() - 1.645 * error, abs=0.15 * error)
    assert found.upper[1] == pytest.approx(difference.mean() + 1.96 * error, abs=0.15 * error)
    assert found.deviation == pytest.approx(difference.std(), rel=0.02)
    again = _compare(_f1(changed), _f1(base))
    assert again == found, "the same on every run"


def test_it_leans_as_scipy_s_does_once_its_two_rows_are_added() -> None:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(2)
    difference = np.where(rng.random(400) < 0.05, -rng.random(400), 0.0)
    found = _compare(_f1(1 + difference), _f1(np.ones(400)))
    sample = np.append(difference, (1, -1))
    known = bootstrap(
        (sample,), np.mean, confidence_level=0.9, n_resamples=9999, rng=np.random.default_rng(0), batch=500
    ).confidence_interval
    assert (found.lower[0], found.upper[0]) == pytest.approx((known.low, known.high), abs=4e-4)


def test_scores_that_are_no_shares_have_bounds_in_their_own_unit() -> None:
    rng = np.random.default_rng(3)
    base = 100 * rng.random(500)
    found = _compare(_f1(base + 10 + rng.normal(size=500)), _f1(base))
    assert 9.5 < found.lower[0] < 10 < found.upper[0] < 10.5
    assert _compare(_f1([3.0] * 9), _f1([1.0] * 9)).lower[0] < 2


def test_clusters_are_drawn_as_wholes() -> None:
    """Ten rows of a cluster change alike: they tell no more than one."""
    rng = np.random.default_rng(4)
    owner = np.repeat(np.arange(200), 10)
    worse = np.repeat(rng.random(200) < 0.1, 10)
    candidate, reference = _f1(np.where(worse, 0.0, 1.0)), _f1(np.ones(2000))
    alone = _compare(candidate, reference)
    together = _compare(candidate, reference, clusters=[str(i) for i in owner])
    one_each = _compare(candidate[::10], reference[::10])
    assert (alone.method, together.method) == ("tango", "bca")
    width = together.value - together.lower[0]
    assert width == pytest.approx(one_each.value - one_each.lower[0], rel=0.2)
    assert width > 2.5 * (alone.value - alone.lower[0])
    single = _compare(candidate, reference, clusters=[str(i) for i in range(2000)])
    assert single == alone, "clusters of one row are rows"


def test_rows_without_the_metric_have_no_part_in_it() -> None:
    reference = [{"NoAns": 1.0}, {"f1": 1.0}] * 20
    candidate = [{"f1": 1.0} if "f1" in row else {"NoAns": 0.0} for row in reference]
    assert _compare(candidate, reference).value == 0
    assert _compare(candidate, reference, "NoAns").value == -1.0
    assert _compare(candidate, reference, "NoAns").lost == 20


def test_other_metrics_are_computed_anew_for_each_draw() -> None:
    rng = np.random.default_rng(0)
    reference = [{"hits": 8, "of": 10} for _ in range(100)]
    candidate = [{"hits": int(rng.integers(5, 10)), "of": 10} for _ in range(100)]
    found = _compare(candidate, reference, "ratio")
    assert found.method == "resampled" and found.gained is None
    spread = np.std([row["hits"] / 10 for row in candidate]) / 10
    assert found.upper[1] - found.lower[1] == pytest.approx(2 * 1.96 * spread, rel=0.2)
    # Drawn together: the same change in every row is no spread at all, though the rows differ.
    shifted = [{**row, "hits": row["hits"] + 1} for row in candidate]
    found = _compare(shifted, candidate, "ratio")
    assert (found.lower[0], found.upper[0]) == pytest.approx((0.1, 0.1))
    clusters = [str(i // 5) for i in range(100)]
    assert _compare(candidate, reference, "ratio", clusters=clusters).lower[0] < found.value


def test_draws_on_which_a_metric_is_not_defined_are_left_out() -> None:
    rows = [{"hits": i, "of": int(i > 0)} for i in range(5)]

    def ratio(drawn: Sequence[Mapping[str, Any]], metric: str) -> float:
        of = sum(row["of"] for row in drawn)
        return sum(row["hits"] for row in drawn) / of if of else math.nan

    found = paired.compare(rows, [{**row, "hits": 0} for row in rows], "ratio", ratio, [0.9])
    assert found.lower[0] < found.value < found.upper[0]
    lost = paired.compare([{**row, "of": 0} for row in rows], rows, "ratio", ratio, [0.9])
    assert all(math.isnan(x) for x in (lost.value, lost.lower[0], lost.upper[0]))


def test_a_single_row_tells_no_bound_of_such_a_metric() -> None:
    found = _compare([{"hits": 1, "of": 2}], [{"hits": 2, "of": 2}], "ratio")
    assert found.value == -0.5 and math.isnan(found.lower[0])


def test_a_level_beyond_every_resample_is_extrapolated() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(3000)
    changed = np.where(rng.random(3000) < 0.5, rng.random(3000), base)
    error = (changed - base).std() / 3000**0.5
    level = 0.9999
    found = paired.compare(_f1(changed), _f1(base), "f1", _share, [level])
    assert found.value - found.lower[0] == pytest.approx(3.719 * error, rel=0.12)


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of the candidate and 1 of the reference"):
        _compare(_f1([1, 1]), _f1([1]))
