"""A candidate whose true drop is the allowed one passes 5 % of the gates, within one point; the draws are stated.

Seeds are fixed, so that a run is repeatable; `STATED` has the number of draws of each test, and so the standard error
of what it counts: 0.2 points for 10,000 draws at 5 %, 0.5 points for 1,600.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from suites.statistics.drawn import changes, mean, scores

from cpu_pipeline.bench.rows_needed import needed, power
from cpu_pipeline.runtime import looks, paired, tango
from cpu_pipeline.runtime.rows_needed import read_table

STATED = {"tango": 20_000, "looks": 40_000, "bca": 1_600, "clusters": 1_200, "bca looks": 800}
DROP, LEVEL = 0.01, 0.95
Z = 1.6448536
WITHIN = pytest.approx(0.05, abs=0.01)


def rng(*seed: object) -> np.random.Generator:
    return np.random.default_rng([ord(letter) for part in seed for letter in str(part)])


def flipped(draw: np.random.Generator, rows: int, flips: float, drop: float, size: int) -> tuple[Any, Any]:
    """Draw how many rows each side alone has right."""
    gained, lost = (flips - drop) / 2, (flips + drop) / 2
    found = draw.multinomial(rows, [gained, lost, 1 - gained - lost], size=size)
    return found[:, 0], found[:, 1]


@pytest.mark.parametrize(("rows", "flips"), [(872, 0.02), (872, 0.05), (1600, 0.02), (1600, 0.1), (10_570, 0.03)])
def test_tango(rows: int, flips: float) -> None:
    gained, lost = flipped(rng("tango", rows, flips), rows, flips, DROP, STATED["tango"])
    passed = (tango.statistics(gained, lost, rows, -DROP) >= Z).mean()
    print(f"\nTango, {rows} rows, {flips:.0%} flip: {passed:.2%} of {STATED['tango']:,} pass")
    assert passed == WITHIN


@pytest.mark.parametrize("flips", [0.03, 0.1])
def test_four_looks(flips: float) -> None:
    draw, part, size = rng("looks", flips), 1000, STATED["looks"]
    gained, lost = np.zeros(size, dtype=int), np.zeros(size, dtype=int)
    passed, open_ = np.zeros(size, dtype=bool), np.ones(size, dtype=bool)
    seen = 0.0
    for look, z in enumerate(looks.quantiles(4, 0.05), 1):
        more = flipped(draw, part, flips, DROP, size)
        gained, lost, seen = gained + more[0], lost + more[1], seen + open_.sum() * part
        statistic = tango.statistics(gained, lost, look * part, -DROP)
        passed |= open_ & (statistic >= z)
        open_ &= (statistic < z) & (statistic > -z)
    print(f"\nfour looks, {flips:.0%} flip: {passed.mean():.2%} of {size:,} pass")
    assert passed.mean() == WITHIN


def test_looks_save_predictions() -> None:
    """A candidate that is no worse, or clearly worse, is decided early."""
    for drop, most in ((0.0, 0.65), (0.06, 0.35)):
        draw, part, size, flips = rng("saved", drop), 1000, 4000, 0.08
        gained, lost, open_, seen = np.zeros(size, int), np.zeros(size, int), np.ones(size, dtype=bool), 0
        for look, z in enumerate(looks.quantiles(4, 0.05), 1):
            more = flipped(draw, part, flips, drop, size)
            gained, lost, seen = gained + more[0], lost + more[1], seen + int(open_.sum()) * part
            statistic = tango.statistics(gained, lost, look * part, -0.02)
            open_ &= (statistic < z) & (statistic > -z)
        share = seen / (size * part * 4)
        print(f"\na true drop of {drop}, 0.02 allowed: {share:.0%} of the rows are predicted")
        assert share < most


@pytest.mark.parametrize(("rows", "flips"), [(420, 0.02), (420, 0.1), (1600, 0.03)])
def test_bca_of_f1(rows: int, flips: float) -> None:
    draw, passed = rng("bca", rows, flips), 0
    for _ in range(STATED["bca"]):
        sides = scores(changes(draw, rows, flips, DROP))
        passed += paired.compare(*sides, "f1", mean, [LEVEL]).lower[0] >= -DROP
    share = passed / STATED["bca"]
    print(f"\nBCa of F1, {rows} rows, {flips:.0%} flip: {share:.2%} of {STATED['bca']:,} pass")
    assert share == WITHIN


def test_bca_of_f1_at_four_looks() -> None:
    draw, passed, size, part = rng("bca looks"), 0, STATED["bca looks"], 400
    levels = [0.5 * (1 + _erf(z)) for z in looks.quantiles(4, 0.05)]
    for _ in range(size):
        drawn = changes(draw, 4 * part, 0.06, DROP)
        for look, level in enumerate(levels, 1):
            found = paired.compare(*scores(drawn[: look * part]), "f1", mean, [level])
            if found.lower[0] >= -DROP or found.upper[0] < -DROP:
                passed += found.lower[0] >= -DROP
                break
    print(f"\nBCa of F1 at four looks: {passed / size:.2%} of {size:,} pass")
    assert passed / size == WITHIN


def _erf(z: float) -> float:
    from math import erf, sqrt

    return erf(z / sqrt(2))


def test_clusters() -> None:
    """Three questions about each of 400 passages, which tend to change together."""
    draw, passed, naive = rng("clusters"), 0, 0
    for _ in range(STATED["clusters"]):
        passages = np.repeat(changes(draw, 400, 0.08, DROP), 3)
        drawn = passages * (draw.random(1200) < 0.8) / 0.8 * 0.8
        drawn = np.where(draw.random(1200) < 0.002, -1.0, drawn)
        true = DROP * 0.8 * 0.998 + 0.002
        names = [str(i // 3) for i in range(1200)]
        sides = scores(drawn)
        passed += paired.compare(*sides, "f1", mean, [LEVEL], clusters=names).lower[0] >= -true
        naive += paired.compare(*sides, "f1", mean, [LEVEL]).lower[0] >= -true
    size = STATED["clusters"]
    print(f"\nclusters: {passed / size:.2%} of {size:,} pass; {naive / size:.2%} if rows are drawn singly")
    assert passed / size == WITHIN
    assert naive / size > 0.09, "what the clusters are for"


@pytest.mark.parametrize("flips", [0.01, 0.02, 0.05, 0.1])
def test_power_is_as_the_table_says(flips: float) -> None:
    table = read_table()
    rows = table["rows"][table["flips"].index(flips)][table["drops"].index(DROP)]
    gained, lost = flipped(rng("power", flips), rows, flips, 0.0, STATED["tango"])
    passed = (tango.statistics(gained, lost, rows, -DROP) >= Z).mean()
    print(f"\n{rows:,} rows, {flips:.0%} flip: {passed:.1%} pass")
    assert passed == pytest.approx(0.8, abs=0.01)


def test_the_table_is_what_its_script_makes() -> None:
    table = read_table()
    for flips, line in zip(table["flips"], table["rows"], strict=True):
        for drop, rows in zip(table["drops"], line, strict=True):
            assert power(rows, flips, drop) >= table["power"]
            if drop >= 0.01:
                assert needed(flips, drop) == rows
