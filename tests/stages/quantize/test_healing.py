"""What keeps a model from its accuracy is found and left in float, by both runtimes, and again after a stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from quantizing import BROKEN, OPTIONS, TASK, job

from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import GateFailed, RecipeError
from cpu_pipeline.stages.quantize import _accuracy, _damage
from cpu_pipeline.stages.quantize._accuracy import Accuracy
from cpu_pipeline.stages.quantize._healing import Search
from cpu_pipeline.stages.quantize._scratch import Notes
from cpu_pipeline.stages.quantize._variants import Operator
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.stages.quantize.openvino import QuantizeOpenvino

QUANTIZERS: dict[str, Any] = {"onnx": QuantizeOnnx, "openvino": QuantizeOpenvino}
pytestmark = pytest.mark.usefixtures("capable")


def run(made: Path, format: str, out: Path, scratch: Path, **accuracy: Any) -> Any:
    for path in (out, scratch):
        path.mkdir(parents=True, exist_ok=True)
    stage = QUANTIZERS[format](**OPTIONS[format], accuracy={"metric": "f1", "sequences": 4, **accuracy})
    return stage.run({"model": Artifact(format, made / format, "", {})}, out, job(made, scratch))


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_operator_that_quantization_breaks_stays_float(
    made: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both runs rank once: what was measured does not depend on the bound.
    whole = run(made, format, tmp_path / "whole", tmp_path / "scratch", max_drop=0.999).healing
    assert whole.floats == [] and whole.value == whole.unhealed
    bound = (whole.reference - whole.unhealed) * 0.8 / whole.reference
    monkeypatch.setattr(_damage.Probe, "answers", lambda *_: pytest.fail("ranked again"))
    facts = run(made, format, tmp_path / "one", tmp_path / "scratch", max_drop=bound)
    healing = facts.healing
    # One of the float model's answers is an article alone, which the metric takes for none.
    assert healing.reference > 0.95
    assert healing.unhealed < 0.9
    assert BROKEN in next(iter(healing.damage))
    assert any(BROKEN in name for name in healing.floats)
    assert len(healing.floats) <= 3
    assert healing.value >= healing.reference * (1 - bound) - 1e-9
    assert len(healing.curve) <= 12


def test_a_run_that_resumes_measures_nothing_again(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = run(made, "onnx", tmp_path / "one", tmp_path / "scratch", max_drop=0.5)
    monkeypatch.setattr(_damage.Probe, "answers", lambda *_: pytest.fail("ranked again"))
    monkeypatch.setattr(_accuracy.Judge, "metrics", lambda *_: pytest.fail("tried again"))
    again = run(made, "onnx", tmp_path / "again", tmp_path / "scratch", max_drop=0.5)
    assert again == facts
    assert digest_tree(tmp_path / "again") == digest_tree(tmp_path / "one")


def test_rows_and_metric_are_asked_for(made: Path, tmp_path: Path) -> None:
    stage = QuantizeOnnx(accuracy={"max_drop": 0.01})
    assert {"data.calibration", "data.selection"} <= stage.asks()
    assert "data.selection" not in QuantizeOnnx().asks() | QuantizeOpenvino().asks()
    assert "data.selection" in QuantizeOpenvino(accuracy={"max_drop": 0.01}).asks()
    assert "no metric `f2`" in QuantizeOnnx(accuracy={"max_drop": 0.01, "metric": "f2"}).misfits(TASK)[0]
    (tmp_path / "out").mkdir()
    given = {"model": Artifact("onnx", made / "onnx", "", {})}
    with pytest.raises(RecipeError, match=r"data\.selection"):
        stage.run(given, tmp_path / "out", replace(job(made, tmp_path), data={}))


def search(
    needed: Set[str], count: int = 40, evaluations: int = 12, notes: Notes | None = None
) -> tuple[Search, list[Set[str]]]:
    """Search among operators `0`, `1`, ..., ranked in this order: without all that are needed the metric is lost."""
    tried: list[Set[str]] = []

    def measure(names: Set[str]) -> tuple[float, float]:
        tried.append(names)
        drop = 0.1 * len(needed - names)
        return 1 - drop, drop

    operators: Sequence[Operator] = [Operator(str(i), "MatMul", 10) for i in range(count)]
    damages: Mapping[str, float] = {str(i): 1.0 / (i + 1) for i in range(count)}
    accuracy = Accuracy(max_drop=0.05, evaluations=evaluations)
    return Search(operators, damages, accuracy, measure, notes or Notes(Path())), tried


@pytest.mark.parametrize(
    ("needed", "found"),
    [(set(), ()), ({"0"}, ("0",)), ({"1"}, ("1",)), ({"0", "3"}, ("0", "3")), ({"0", "1", "2"}, ("0", "1", "2"))],
)
def test_the_smallest_set_is_found_within_the_evaluations(needed: set[str], found: tuple[str, ...]) -> None:
    made, tried = search(needed)
    assert made.smallest() == found
    assert len(tried) <= 12


def test_evaluations_are_bounded_and_not_repeated(tmp_path: Path) -> None:
    made, tried = search({"20"}, evaluations=7, notes=Notes(tmp_path))
    found = made.smallest()
    assert found is not None and "20" in found
    assert len(tried) == 7
    again, nothing = search({"20"}, evaluations=7, notes=Notes(tmp_path))
    assert again.smallest() == found
    assert nothing == []


def test_what_cannot_be_reached_tells_every_point(made: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"can't be reached.*0 of \d+ → .*weights int8; 1 of \d+ → ") as failed:
        run(made, "onnx", tmp_path / "out", tmp_path / "scratch", max_drop=1e-9, evaluations=2)
    assert failed.value.exit_code == 3


def test_nncf_controls_the_accuracy_in_a_bounded_number_of_iterations(made: Path, tmp_path: Path) -> None:
    healing = run(made, "openvino", tmp_path / "out", tmp_path, max_drop=0.4, evaluations=2, method="nncf").healing
    assert healing.method == "nncf"
    assert healing.unhealed < 0.6 * healing.reference <= healing.value
    assert any(BROKEN in name for name in healing.floats), healing.floats
    assert 0 < len(healing.floats) < healing.operators
    assert [point.floats for point in healing.curve] == [0, len(healing.floats)]
    assert 0 < healing.curve[-1].int8_weights < 1


def test_nncf_is_not_for_onnx() -> None:
    with pytest.raises(ValidationError, match=r"`method: nncf` is for quantize\.openvino"):
        QuantizeOnnx(accuracy={"max_drop": 0.01, "method": "nncf"})
