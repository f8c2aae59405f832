"""What quantization breaks is ranked first, and putting it back to float brings the metric back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantizing import BROKEN, OPTIONS, job

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.quantize import _accuracy, _damage
from cpu_pipeline.stages.quantize.sensitivity import FILE, QuantizeSensitivity

pytestmark = pytest.mark.usefixtures("capable")


def measure(made: Path, format: str, out: Path, given: Job, **options: Any) -> Any:
    for path in (out, given.scratch):
        path.mkdir(parents=True, exist_ok=True)
    stage = QuantizeSensitivity(use=f"quantize.{format}", options=OPTIONS[format], sequences=4, **options)
    return stage.run({"model": Artifact(format, made / format, "", {})}, out, given)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_broken_operator_is_the_worst_and_is_confirmed(made: Path, tmp_path: Path, format: str) -> None:
    facts = measure(made, format, tmp_path / "out", job(made, tmp_path / "scratch"), worst=2)
    damages = [operator.damage for operator in facts.operators]
    assert damages == sorted(damages, reverse=True)
    assert BROKEN in facts.operators[0].name
    assert facts.operators[0].kind == "MatMul"
    assert facts.operators[0].weights == 64 * 128
    assert [one.name for one in facts.confirmed] == [operator.name for operator in facts.operators[:2]]
    assert facts.quantized < 0.9 < facts.reference
    assert facts.confirmed[0].value > facts.quantized + 0.2
    assert (facts.metric, facts.lower_is_better, facts.role, facts.rows) == ("f1", False, "selection", 32)
    assert json.loads((tmp_path / "out" / FILE).read_text()) == facts.model_dump(mode="json")


def test_a_run_that_was_stopped_measures_only_the_rest(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = job(made, tmp_path / "scratch")
    first = measure(made, "onnx", tmp_path / "first", given, worst=1)
    monkeypatch.setattr(_damage.Probe, "answers", lambda *_: pytest.fail("ranked again"))
    monkeypatch.setattr(_accuracy.Judge, "metrics", lambda *_: pytest.fail("measured again"))
    assert measure(made, "onnx", tmp_path / "again", given, worst=1) == first


def test_rows_without_right_answers_rank_and_confirm_nothing(made: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (made / "calibration.jsonl").read_text().splitlines()]
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "answers"}) + "\n" for row in rows))
    given = replace(job(made, tmp_path / "scratch"), data={"calibration": bare, "selection": bare})
    facts = measure(made, "onnx", tmp_path / "out", given, role="calibration")
    assert facts.operators and not facts.confirmed and facts.reference is None
    with pytest.raises(RecipeError, match="answers"):
        measure(made, "onnx", tmp_path / "chosen", replace(given, scratch=tmp_path / "other"))


def test_calibration_rows_are_asked_for_always_and_selection_rows_where_they_confirm() -> None:
    assert QuantizeSensitivity(use="quantize.onnx", role="calibration").asks() == {"task", "target", "data.calibration"}
    assert "data.selection" in QuantizeSensitivity(use="quantize.onnx").asks()


def test_weights_alone_have_no_operators_in_int8(made: Path, tmp_path: Path) -> None:
    stage = QuantizeSensitivity(use="quantize.openvino", options={"mode": "weights"})
    given = job(made, tmp_path)
    with pytest.raises(RecipeError, match="mode: weights"):
        stage.run({"model": Artifact("openvino", made / "openvino", "", {})}, tmp_path, given)
