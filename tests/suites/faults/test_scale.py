"""The accuracy gate on the quickstart's real model: itself against itself passes, with a wrong scale it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import ROOT, ProjectFixture

WEIGHT = "roberta.encoder.layer.2.attention.self.query.weight"


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (8.0, 3)])
def test_wrong_scale_fails_the_gate(bench: ProjectFixture, factor: float, code: int) -> None:
    quickstart: Path = ROOT / "recipes" / "quickstart"
    shutil.copytree(quickstart / "model", bench.home / "small")
    shutil.copyfile(quickstart / "validation.jsonl", bench.home / "validation.jsonl")
    recipe = bench.recipe(
        {"id": "scaled", "use": "faulty.scale", "weight": WEIGHT, "factor": factor, "runs": None},
        {"id": "gate", "use": "validate.accuracy", "from": {"reference": "model"}, "max_drop": 0.01},
        model={"folder": "small"},
        task="question-answering",
        data={"validation": {"file": "validation.jsonl", "take": 120}},
    )
    text = recipe.read_text().replace("    runs: null\n", "")
    recipe.write_text(text)
    ended = bench.run(recipe)
    ended.expect(code, *(["step `gate`", "f1"] if code else []))
    assert (bench.out / "small" / "latest").exists() == (code == 0)
