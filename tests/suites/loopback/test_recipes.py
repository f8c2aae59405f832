"""The real recipes pass their gates on every validation row, through the loopback Hub."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from huggingface_hub import ModelCard
from suites.loopback.serving import pipeline

from cpu_pipeline import backends
from cpu_pipeline.release.verify import verify

pytestmark = pytest.mark.loopback

ROWS = {"roberta-qa": 1595, "minilm-embeddings": 1500, "distilbert-sst2": 872, "minilm-squad": 1484}
"""Recipe -> validation rows that the loopback Hub has; all of them are used."""
PLACES = {name: ROOT / "recipes" / f"{name}.yaml" for name in ROWS} | {
    "minilm-squad": Path(__file__).with_name("minilm-squad.yaml")
}
SLICE = 320
"""Validation rows on which every way to run one model is compared; ALL_ROWS=1, as in the nightly session: all rows."""


def run(recipe: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a recipe; built steps and downloads are shared by all tests."""
    return pipeline(home, "run", recipe, "--out", home / "out", "--json")


def some_rows(recipe: Path, into: Path) -> Path:
    """Write compare-qa for SLICE rows: fewer rows are less certain, so bounds and measurements are those of a trial."""
    said = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    said["data"]["validation"] |= {"take": SLICE, "seed": 0}
    pipe = yaml.safe_load((ROOT / "pipelines" / f"{said['pipeline']}.yaml").read_text(encoding="utf-8"))
    trial = {
        "validate.accuracy": {"max_drop": 0.05, "confidence": 0.5, "min_rows": 100},
        "validate.latency": {"calls": 8, "rounds": 2, "processes": 1, "warmup": 1, "min_speedup": 0.2},
    }
    said["with"] |= {step["id"]: trial[step["use"]] for step in pipe["stages"] if step["use"] in trial}
    path = into / recipe.name
    path.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("recipe", sorted(ROWS))
def test_passes_its_gates_on_every_row_and_is_then_cached(recipe: str, home: Path) -> None:
    first = run(PLACES[recipe], home)
    assert first.returncode == 0, first.stderr[-3000:]
    result = json.loads(first.stdout)
    accuracies = [s["facts"] for s in result["steps"].values() if "metrics" in s["facts"]]
    assert accuracies
    for facts in accuracies:
        assert facts["rows"] == ROWS[recipe]
        usual = facts["metrics"][facts["metric"]]
        assert usual["reference"] > 0.5, "a model that knows nothing proves nothing"
        assert usual["candidate"] >= 0.99 * usual["reference"]
    version = Path(result["path"])
    manifest: dict[str, Any] = json.loads((version / "manifest.json").read_text())
    assert all(check["passed"] for found in manifest["checks"].values() for check in found)
    assert "How to load" in (version / "report.md").read_text()
    assert verify(version).version == version.name
    for output in manifest["outputs"]:
        card = ModelCard.load(version / output / "README.md").data
        assert card.base_model == manifest["recipe"]["model"]["hub"]
        shown = {one.metric_type: one.metric_value for one in card.eval_results or ()}
        [measured] = [
            step["facts"]["metrics"]
            for step in manifest["steps"].values()
            if step["use"] == "validate.accuracy" and step["inputs"]["candidate"] == f"predict:{output}"
        ]
        scale = 100 if card.pipeline_tag == "question-answering" else 1
        assert shown == pytest.approx({name: scale * one["candidate"] for name, one in measured.items()}, abs=1e-4)
    again = run(PLACES[recipe], home)
    assert again.returncode == 0
    assert json.loads(again.stdout)["built"] == []
    assert json.loads(again.stdout)["path"] == result["path"]


def test_peak_memory_stays_within_four_times_the_weights(home: Path) -> None:
    for recipe in ROWS:
        result = run(PLACES[recipe], home)
        manifest = json.loads((Path(json.loads(result.stdout)["path"]) / "manifest.json").read_text())
        steps = manifest["steps"]
        # Weights as float32, whatever the checkpoint stores: that is what every exporter holds.
        weights = 4 * steps["model"]["facts"]["parameters"]
        for name, step in steps.items():
            if step["use"].startswith(("export.", "fuse.", "quantize.")):
                assert step["run"]["peak_memory"] <= 4 * weights + 1.5e9, f"{recipe}: {name}"


def test_quantization_heals_itself_on_rows_that_no_gate_sees(home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "minilm-squad-healed.yaml"
    said = yaml.safe_load(Path(__file__).with_name(recipe.name).read_text(encoding="utf-8"))
    said["data"]["validation"] |= {"take": SLICE, "seed": 0}
    recipe.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    done = run(recipe, home)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = json.loads(done.stdout)["steps"]
    for name, drop in (("onnx", 0.008), ("openvino", 0.004)):
        healing = steps[f"{name}-healed"]["facts"]["healing"]
        assert healing["value"] >= (1 - drop) * healing["reference"] > 0.5
        assert len(healing["curve"]) <= 6
        f1 = steps[f"{name}-accuracy"]["facts"]["metrics"]["f1"]
        assert f1["candidate"] >= 0.97 * f1["reference"]
        print(f"{name}: F1 {f1['candidate']:.4f} of {f1['reference']:.4f}, floats {healing['floats']}")
    ranked = pipeline(home, "sensitivity", recipe, "openvino-int8", "--out", home / "out", "--json")
    assert ranked.returncode == 0, ranked.stderr[-3000:]
    found = json.loads(ranked.stdout)
    assert (found["role"], found["rows"]) == ("selection", said["data"]["selection"]["take"])
    assert len([one for one in found["operators"] if one["value"] is not None]) == 5
    again = pipeline(home, "sensitivity", recipe, "openvino-int8", "--out", home / "out", "--json")
    assert again.stdout == ranked.stdout


def test_every_way_of_one_model_is_compared_by_one_harness(home: Path, tmp_path: Path) -> None:
    whole, all_rows = ROOT / "recipes" / "compare-qa.yaml", bool(os.environ.get("ALL_ROWS"))
    done = run(whole if all_rows else some_rows(whole, tmp_path), home)
    assert done.returncode == 0, done.stderr[-3000:]
    version = Path(json.loads(done.stdout)["path"])
    manifest: dict[str, Any] = json.loads((version / "manifest.json").read_text())
    steps = manifest["steps"]
    judged = {name.removesuffix("-accuracy") for name, step in steps.items() if step["use"] == "validate.accuracy"}
    assert judged == {name.removesuffix("-speed") for name, step in steps.items() if step["use"] == "validate.latency"}
    assert {steps[name]["format"] for name in judged} == set(backends.names()) - {"hf"}
    assert {steps[name]["use"] for name in judged} >= {
        "compile.aoti", "compile.fastpath", "export.onnx", "export.openvino", "export.optimum", "export.torchscript",
        "fuse.ipex", "fuse.onnx", "quantize.onnx", "quantize.openvino", "quantize.pt2e",
    }  # fmt: skip
    for name in judged:
        facts = steps[f"{name}-accuracy"]["facts"]
        assert facts["rows"] == (ROWS["roberta-qa"] if all_rows else SLICE)
        assert facts["metrics"]["f1"]["candidate"] >= 0.98 * facts["metrics"]["f1"]["reference"] > 0.5
        # Every one against transformers eager, whose answers are made once.
        assert steps[f"{name}-accuracy"]["inputs"]["reference"] == "predict:model"
    assert set(manifest["environments"]) == {"ipex", "optimum"}
    report = (version / "report.md").read_text()
    table = report.partition("## Side by side")[2].partition("###")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert lines[0].split("`")[1] == "model"
    assert {line.split("`")[1] for line in lines} == {"model", *judged}
    assert all(line.count("|") == table.split("\n|---", 1)[0].count("|") for line in lines)
    assert all(" |  |" not in line for line in lines), "a cell is empty"
    assert "archived upstream" in report
    print("\n" + table)
