"""What is nearly the same in two data roles is told by `check`, and fails nothing."""

from __future__ import annotations

import json
from pathlib import Path

from project import ProjectFixture

from cpu_pipeline.graph.check import check

TEXT = "a film about two brothers who meet again after many years"


def test_check_warns(tmp_path: Path) -> None:
    bench = ProjectFixture(tmp_path / "project")
    for role, text in (("calibration", TEXT), ("validation", f"{TEXT}!")):
        (bench.home / f"{role}.jsonl").write_text(json.dumps({"text": text, "label": "good"}) + "\n")
    data = {role: {"file": f"{role}.jsonl"} for role in ("calibration", "validation")}
    warnings = check(bench.recipe({"id": "made", "use": "export.onnx"}, data=data)).warnings
    (says,) = [line for line in warnings if "nearly" in line]
    assert says.startswith("1 of 1 rows of data.validation (100.0%) are nearly rows of data.calibration")
