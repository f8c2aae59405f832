"""Intervals that cover what they should, stay put, and know what they cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpu_pipeline.runtime import intervals
from cpu_pipeline.runtime.intervals import Interval, speed_up


def test_equal_differences_bound_themselves() -> None:
    # scipy's BCa gives NaN here: an unchanged model, or one that is worse by the same everywhere.
    # 0.1, because the plain mean of seven of them is another number.
    assert intervals.mean([0.1] * 7) == Interval(0.1, 0.1, 0.1)


@pytest.mark.parametrize("count", [400, 8000])
def test_a_mean_s_interval_is_near_the_textbook_s(count: int) -> None:
    values = np.random.default_rng(1).normal(0.5, 1, count)
    found = intervals.mean(values.tolist())
    half = 1.96 * values.std(ddof=1) / count**0.5
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.2 * half)
    narrower = intervals.mean(values.tolist(), confidence=0.5)
    assert found.low < narrower.low < narrower.high < found.high


def test_the_interval_leans_with_the_data_more_than_percentiles_do() -> None:
    values = np.random.default_rng(0).lognormal(0, 1.5, 60)
    drawn = np.random.default_rng(1).choice(values, (20_000, 60)).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = intervals.mean(values.tolist())
    assert found.low > low + 0.05
    assert found.high > high + 0.1


def test_one_different_row_still_has_finite_bounds() -> None:
    found = intervals.mean([0.0] * 50 + [-1.0])
    assert -1 < found.low < found.value < found.high <= 0


def test_a_single_row_or_none_tells_no_interval() -> None:
    one = intervals.mean([0.5])
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(intervals.mean([]).value)


def test_a_speed_up_is_the_ratio_of_medians_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    slow = 0.02 * (1 + 0.05 * rng.random((6, 30)))
    fast = 0.01 * (1 + 0.05 * rng.random((6, 40)))
    found = speed_up(slow, fast)
    assert found.value == pytest.approx(np.median(slow) / np.median(fast))
    assert 1.9 < found.low < found.value < found.high < 2.1
    assert speed_up(fast, slow).value == pytest.approx(1 / found.value)


def test_blocks_are_drawn_in_pairs_and_whole() -> None:
    # The machine slows down for both alike from block to block: the ratio is as sure as ever.
    mood = np.array([1, 1, 1, 3, 3, 3, 9, 9, 9])[:, None]
    slow, fast = 0.02 * mood * np.ones((9, 5)), 0.01 * mood * np.ones((9, 5))
    assert speed_up(slow, fast) == Interval(2, 2, 2)
    # A few blocks that differ among themselves are few samples, however many calls each has.
    rng = np.random.default_rng(0)
    slow = 0.02 * np.array([1, 1.2, 1.4, 1.6])[:, None] * (1 + 0.01 * rng.random((4, 200)))
    fast = 0.01 * (1 + 0.01 * rng.random((4, 200)))
    found = speed_up(slow, fast)
    assert found.high - found.low > 0.5


def test_speed_ups_of_unlike_shapes_are_refused() -> None:
    for slow, fast in [
        (np.ones(3), np.ones(3)),
        (np.ones((2, 3)), np.ones((3, 3))),
        (np.ones((2, 0)), np.ones((2, 3))),
    ]:
        with pytest.raises(ValueError, match="timings must be"):
            speed_up(slow, fast)


def test_every_run_says_the_same() -> None:
    values = np.random.default_rng(3).random((4, 25))
    assert intervals.mean(values[0].tolist()) == intervals.mean(values[0].tolist())
    assert speed_up(values + 1, values) == speed_up(values + 1, values)
