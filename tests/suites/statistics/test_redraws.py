"""On redraws of the quickstart's own rows the gate passes what is truly worse as seldom as it says.

Its model and gates are built; 200 redraws, as `python -m cpu_pipeline.bench.redraws RECIPE --store STORE` makes them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from cpu_pipeline.bench.redraws import redraw
from cpu_pipeline.store.local import Store

DRAWS = 200
LUCK = 6
"""Passes beyond 5 % of the draws that chance may add: two standard errors of a count of 200."""


def test_the_quickstart(tmp_path: Path) -> None:
    recipe, store = ROOT / "recipes" / "quickstart.yaml", tmp_path / "store"
    words = ("run", recipe, "--store", store, "--out", tmp_path / "out", "--no-measure")
    done = subprocess.run(
        [sys.executable, "-m", "cpu_pipeline", *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = redraw(recipe, Store(store), DRAWS, worse=0.02)
    assert [one.gate for one in found] == ["onnx-accuracy", "openvino-accuracy"]
    for one in found:
        print(f"\n{one.gate}: {one.outcomes}, {one.flips:.1%} differ, {one.needed} rows needed, {one.rows} there")
        assert one.outcomes["worse"]["pass"] <= 0.05 * DRAWS + LUCK
        assert one.outcomes["identical"] == {"pass": DRAWS, "inconclusive": 0, "fail": 0}
        assert one.outcomes["no worse"]["fail"] == 0
        assert one.needed is not None and one.needed <= one.rows, "the table calls the rows enough"
        assert one.outcomes["no worse"]["pass"] >= 0.8 * DRAWS, "and so they are"
