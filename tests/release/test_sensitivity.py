"""`sensitivity` measures the step that is named, on the right rows, and writes a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from conftest import ROOT, Cli

from cpu_pipeline import api
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import sensitivity
from cpu_pipeline.release.bars import bars
from cpu_pipeline.release.sensitivity import SensitiveOperator, SensitivityTable
from cpu_pipeline.stages.quantize.sensitivity import SensitivityFacts

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
FOUND = SensitivityTable(
    "small", "int8:a", "quantize.onnx", "KL divergence", 48, "mse", "lower", "calibration", 100, 0.5, 0.75,
    [SensitiveOperator("a<b>/MatMul", "MatMul", 64, 0.5, 0.625, 0.125),
     *(SensitiveOperator(f"{i}/MatMul", "MatMul", 0, None, None, None) for i in range(30))],
)  # fmt: skip


@pytest.fixture(scope="module")
def planned() -> Plan:
    return api.plan(api.load_recipe(QUICKSTART))


def with_selection(folder: Path) -> Plan:
    said = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    for place in (said["model"], *said["data"].values()):
        for key, value in place.items():
            place[key] = str(ROOT / "recipes" / value)
    said["data"]["selection"] = {"file": str(ROOT / "recipes" / "quickstart" / "train.jsonl"), "take": 20}
    said["with"]["onnx-int8"] = {"skip_operators": ["Gather"], "accuracy": {"max_drop": 0.01}}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(said), encoding="utf-8")
    return api.plan(api.load_recipe(path, allow_paths=[ROOT]))


def test_only_what_leads_to_the_step_is_built_and_nothing_is_put_out(planned: Plan) -> None:
    part = sensitivity.make_plan(planned, "openvino-int8")
    node = part.nodes["sensitivity:openvino-int8"]
    assert node.inputs == {"model": "openvino"} and node.data == {"calibration": "data.calibration"}
    assert node.stage.model_dump()["use"] == "quantize.openvino"
    assert part.outputs == ()
    assert not {"onnx", "openvino-int8", "onnx-int8", "openvino-speed"} & set(part.nodes)


def test_selection_rows_confirm_and_the_step_keeps_its_options(tmp_path: Path) -> None:
    node = sensitivity.make_plan(with_selection(tmp_path), "onnx-int8", "exact_match").nodes["sensitivity:onnx-int8"]
    said = node.stage.model_dump()
    assert node.data == {"calibration": "data.calibration", "selection": "data.selection"}
    assert (said["role"], said["metric"]) == ("selection", "exact_match")
    assert said["options"] == {"per_channel": True, "skip_operators": ["Gather"]}


@pytest.mark.parametrize(
    ("step", "metric", "says"),
    [
        ("onnx-int9", None, r"no step of quantize.onnx or quantize.openvino is called `onnx-int9`.*onnx-int8"),
        ("onnx", None, "there are: onnx-int8, openvino-int8"),
        ("onnx-int8", "f2", "--metric f2: no such metric"),
    ],
)
def test_what_is_not_there_is_refused(step: str, metric: str | None, says: str, planned: Plan) -> None:
    with pytest.raises(RecipeError, match=says):
        sensitivity.make_plan(planned, step, metric)


def test_calibration_rows_are_needed(planned: Plan) -> None:
    nodes = {name: node for name, node in planned.nodes.items() if name != "data.calibration"}
    with pytest.raises(RecipeError, match=r"data\.calibration"):
        sensitivity.make_plan(replace(planned, nodes=nodes), "onnx-int8")


@pytest.mark.parametrize(("lower", "gain"), [(False, 0.25), (True, -0.25)])
def test_the_gain_is_that_over_the_quantized_model(lower: bool, gain: float, planned: Plan) -> None:
    facts: Mapping[str, Any] = {
        "measure": "KL divergence", "sequences": 4, "metric": "f1", "lower_is_better": lower, "role": "calibration",
        "rows": 9, "reference": 1.0, "quantized": 0.5, "confirmed": [{"name": "a", "value": 0.75}],
        "operators": [{"name": n, "kind": "MatMul", "weights": 1, "damage": d} for n, d in (("a", 0.5), ("b", 0.25))],
    }  # fmt: skip
    part = sensitivity.make_plan(planned, "onnx-int8")
    name = "sensitivity:onnx-int8"
    stored = SensitivityFacts.model_validate(facts).model_dump(mode="json")
    built: Any = SimpleNamespace(plan=part, artifacts={name: SimpleNamespace(facts=stored)})
    found = sensitivity.collect(built, "onnx-int8")
    assert [(one.name, one.value, one.gain) for one in found.operators] == [("a", 0.75, gain), ("b", None, None)]
    assert found.use == "quantize.onnx"
    assert found.better == ("lower" if lower else "higher")


def test_table_and_picture_are_written(planned: Plan, tmp_path: Path) -> None:
    folder = sensitivity.write(FOUND, planned, tmp_path)
    assert folder == tmp_path / "quickstart" / "sensitivity" / "int8-a"
    assert sorted(path.name for path in folder.iterdir()) == ["report.md", "sensitivity.json", "sensitivity.svg"]
    report = (folder / "report.md").read_text()
    assert "100 rows of data.calibration" in report and "sensitivity.svg" in report and "a&lt;b&gt;" in report
    assert report.count("\n|") == 2 + len(FOUND.operators)
    assert json.loads((folder / "sensitivity.json").read_text())["operators"][0]["gain"] == 0.125
    picture = ElementTree.fromstring((folder / "sensitivity.svg").read_text())
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "a<b>/MatMul" in texts and texts.count("undefined") == sensitivity.SHOWN - 1


def test_bars_are_as_long_as_their_values() -> None:
    drawn = ElementTree.fromstring(bars("title", [("a", 2.0), ("b\x00", 0.5), ("c", None), ("d" * 90, 0.0)], "nats"))
    lengths = [float(each.attrib["width"]) for each in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert lengths == [400.0, 100.0, 0.0, 0.0]


def test_the_table_is_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(api, "sensitivity", lambda *_, **__: (FOUND, tmp_path))
    printed = cli("sensitivity", QUICKSTART, "onnx-int8")
    assert printed.code == 0, printed.err
    first = printed.out.splitlines()[1].split()
    assert first == ["a<b>/MatMul", "MatMul", "64", "0.5", "0.6250", "+0.1250"]
    assert "as the recipe has no data.selection" in printed.out and "11 more operators" in printed.out
