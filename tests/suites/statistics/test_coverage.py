"""Every two-sided 95 % interval holds the true difference in 95 % of the draws, within 1.5 points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from suites.statistics.drawn import changes, mean, scores

from cpu_pipeline.runtime import paired, tango

STATED = {"tango": 4_000, "bca": 1_000, "errors": 500, "clusters": 1_000, "resampled": 500}
SIDE = 0.975
WITHIN = pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("rows", "flips", "drop"), [(872, 0.03, 0.01), (872, 0.1, 0.0), (5000, 0.05, 0.02)])
def test_tango(rows: int, flips: float, drop: float) -> None:
    rng = np.random.default_rng(rows)
    parts = [(flips - drop) / 2, (flips + drop) / 2, 1 - flips]
    drawn = rng.multinomial(rows, parts, size=STATED["tango"])
    held = [
        tango.lower(b, c, rows, 1.959964) <= -drop <= tango.upper(b, c, rows, 1.959964) for b, c, _ in drawn.tolist()
    ]
    print(f"\nTango {rows} {flips}: {np.mean(held):.2%}")
    assert np.mean(held) == WITHIN


@pytest.mark.parametrize(("rows", "flips", "drop"), [(420, 0.05, 0.01), (1600, 0.05, 0.0)])
def test_bca_of_f1(rows: int, flips: float, drop: float) -> None:
    rng, held = np.random.default_rng(rows), 0
    for _ in range(STATED["bca"]):
        found = paired.compare(*scores(changes(rng, rows, flips, drop)), "f1", mean, [SIDE])
        held += found.lower[0] <= -drop <= found.upper[0]
    print(f"\nBCa {rows} {flips}: {held / STATED['bca']:.2%}")
    assert held / STATED["bca"] == WITHIN


def test_bca_of_squared_errors() -> None:
    """Row scores that are no shares, and lean: errors of a regression."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(STATED["errors"]):
        noise = rng.normal(size=(2, 300))
        ours = [{"mse": float(one)} for one in (noise[0] + 0.5 * noise[1]) ** 2]
        theirs = [{"mse": float(one)} for one in noise[0] ** 2]
        found = paired.compare(ours, theirs, "mse", mean, [SIDE])
        held += found.lower[0] <= 0.25 <= found.upper[0]
    print(f"\nBCa of squared errors: {held / STATED['errors']:.2%}")
    assert held / STATED["errors"] == WITHIN


def test_clusters() -> None:
    rng, held = np.random.default_rng(2), 0
    names = [str(i // 3) for i in range(900)]
    for _ in range(STATED["clusters"]):
        drawn = np.repeat(changes(rng, 300, 0.1, 0.02), 3) * (rng.random(900) < 0.7)
        found = paired.compare(*scores(drawn), "f1", mean, [SIDE], clusters=names)
        held += found.lower[0] <= -0.014 <= found.upper[0]
    print(f"\nclusters: {held / STATED['clusters']:.2%}")
    assert held / STATED["clusters"] == WITHIN


class Pairs:
    """Columns of numbers, from which rows are drawn quickly."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def take(self, positions: Any) -> Pairs:
        return Pairs(self.values[positions])


def correlation(rows: Any, metric: str) -> float:
    values = rows.values if isinstance(rows, Pairs) else np.array([[row["gold"], row["said"]] for row in rows])
    centred = values - values.mean(axis=0)
    return float((centred[:, 0] * centred[:, 1]).sum() / np.sqrt((centred**2).sum(axis=0).prod()))


def test_a_metric_that_is_computed_anew() -> None:
    """Pearson's correlation of two models with the same gold scores, of which one is noisier."""
    rng, held = np.random.default_rng(3), 0
    true = 1 / np.sqrt(1.41) - 1 / np.sqrt(1.25)
    for _ in range(STATED["resampled"]):
        gold, common = rng.normal(size=(2, 300))
        said = gold + 0.5 * common
        noisy = said + 0.4 * rng.normal(size=300)
        sides = [np.stack([gold, one], axis=1) for one in (noisy, said)]
        rows = [[{"gold": a, "said": b} for a, b in side.tolist()] for side in sides]
        packed = Pairs(sides[0]), Pairs(sides[1])
        found = paired.compare(*rows, "pearson", correlation, [SIDE], packed=packed)
        held += found.lower[0] <= true <= found.upper[0]
    print(f"\nresampled correlation: {held / STATED['resampled']:.2%}")
    assert held / STATED["resampled"] == WITHIN
