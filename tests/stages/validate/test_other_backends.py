"""A backend of another distribution is one file: what it runs is predicted and validated like any other model."""

from __future__ import annotations

import json
from pathlib import Path

from project import ProjectFixture


def test_predicts_and_validates_a_format_that_an_entry_point_adds(tmp_path: Path) -> None:
    # Arrange: two models in a format that nothing of this package names, the second with a shifted logit.
    project = ProjectFixture(tmp_path / "project")
    rows = [
        {"id": str(n), "text": ("bad film " if n % 2 else "good day ") * (n % 3 + 1), "label": n % 2} for n in range(12)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (project.home / "rows.jsonl").write_text(lines, encoding="utf-8")
    sides = {"candidate": "second", "reference": "first"}
    recipe = project.recipe(
        {"id": "first", "form": "toy", "text": "0"},
        {"id": "second", "form": "toy", "text": "0.01", "from": {"model": "model"}},
        {"id": "agreement", "use": "validate.agreement", "from": sides, "max_difference": 0.02, "same_top": 0.5},
        {"id": "accuracy", "use": "validate.accuracy", "from": sides, "max_drop": 0.999, "min_rows": 12},
        {"id": "speed", "use": "validate.latency", "from": sides, "max_median": 60, "calls": 2, "rounds": 2,
         "processes": 1},
        data={"validation": {"file": "rows.jsonl"}},
        outputs=["second"],
    )  # fmt: skip

    # Act
    said = project.built(recipe).json

    # Assert: each row was answered by both models, and the raw outputs were compared.
    facts = {name: step["facts"] for name, step in said["steps"].items()}
    assert facts["predict:first"]["rows"] == facts["predict:second"]["rows"] == 12
    assert facts["accuracy"]["counts"]["candidate"]["missing"] == 0
    assert 0.009 < facts["agreement"]["max_abs"] < 0.011
    assert facts["speed"]["calls"] == 4
