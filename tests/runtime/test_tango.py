"""Tango's interval has the values of the literature, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_pipeline.runtime import tango

TWO_SIDED, ONE_SIDED = 1.959964, 1.6448536


def test_the_two_sided_interval_is_the_published_one() -> None:
    assert tango.lower(40, 20, 160, TWO_SIDED) == pytest.approx(0.03086, abs=5e-6)
    assert tango.upper(40, 20, 160, TWO_SIDED) == pytest.approx(0.21806, abs=5e-6)


@pytest.mark.parametrize(
    ("gained", "lost", "rows", "bound"),
    [
        (10, 12, 872, -0.01175),
        (3, 14, 872, -0.02164),
        (0, 0, 872, -0.00309),
        (150, 165, 10_570, -0.00420),
    ],
)
def test_one_sided_bounds(gained: int, lost: int, rows: int, bound: float) -> None:
    assert tango.lower(gained, lost, rows, ONE_SIDED) == pytest.approx(bound, abs=5e-6)
    assert tango.upper(lost, gained, rows, ONE_SIDED) == pytest.approx(-bound, abs=5e-6)


def test_where_no_row_flips_the_bound_has_a_closed_form() -> None:
    for rows in (1, 10, 1000):
        assert tango.lower(0, 0, rows, ONE_SIDED) == pytest.approx(-(ONE_SIDED**2) / (rows + ONE_SIDED**2))


def test_bounds_stay_within_what_is_possible() -> None:
    assert tango.lower(0, 5, 5, ONE_SIDED) == pytest.approx(-1, abs=1e-12)
    assert -1 <= tango.lower(5, 0, 5, ONE_SIDED) < tango.upper(5, 0, 5, ONE_SIDED) == pytest.approx(1, abs=1e-12)
    assert np.isnan(tango.lower(0, 0, 0, ONE_SIDED))


def test_many_results_at_once_are_those_of_one_after_the_other() -> None:
    gained, lost = np.meshgrid(np.arange(4), np.arange(4))
    for difference in (-0.2, 0.0, 0.1):
        together = tango.statistics(gained.ravel(), lost.ravel(), 20, difference)
        single = [tango.statistic(int(b), int(c), 20, difference) for b, c in zip(gained.flat, lost.flat, strict=True)]
        assert together == pytest.approx(single)
