"""Models that are ONNX or OpenVINO already: given a tokenizer from elsewhere, quantized, judged against themselves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from stages.conftest import job_for
from suites.loopback.serving import HUB, pipeline

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages.export.onnx import ExportOnnx
from cpu_pipeline.stages.export.openvino import ExportOpenvino

pytestmark = pytest.mark.loopback

BASE, BASE_COMMIT = "deepset/roberta-base-squad2", "adc3b06f79f797d1c575d5479d6f5efe54a9e3b4"
DATA, DATA_COMMIT = "rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412"
COMMIT = "b" * 40
EXPORTED = {"onnx": "optimum/roberta-base-squad2", "openvino": "optimum/roberta-base-squad2-openvino"}
ROWS = 200

Make = Callable[[str], Path]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out repositories as `serve.py --repos` serves them: the stand-in as ONNX and as OpenVINO, no tokenizer."""
    source = Artifact("hf", HUB / "repos" / "models" / BASE / BASE_COMMIT, "", {})
    root = tmp_path_factory.mktemp("repos")
    for format, stage in (("onnx", ExportOnnx()), ("openvino", ExportOpenvino())):
        made = tmp_path_factory.mktemp(format)
        stage.run({"model": source}, made, job_for("question-answering"))
        repository = root / "models" / EXPORTED[format] / COMMIT
        repository.mkdir(parents=True)
        for path in made.iterdir():
            if re.fullmatch(r"model\.onnx|openvino_model\.(xml|bin)|config\.json", path.name):
                shutil.copyfile(path, repository / path.name)
    return root


def recipe(place: Path, model: dict[str, Any], *stages: dict[str, Any], tokenizer: bool = True) -> Path:
    rows = {"hub": DATA, "revision": DATA_COMMIT}
    written: dict[str, Any] = {
        "model": model,
        "task": {"use": "question-answering", "with": {"version": 2, "max_seq_length": 384, "doc_stride": 128}},
        "data": {
            "calibration": {**rows, "split": "train", "take": 24},
            "validation": {**rows, "split": "validation", "take": ROWS},
        },
        "stages": list(stages),
    }
    if tokenizer:
        written["tokenizer"] = {"hub": BASE, "revision": BASE_COMMIT}
    place.mkdir(parents=True, exist_ok=True)
    path = place / "formats.yaml"
    path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return path


def run(path: Path, shelf: Path, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe through a Hub that serves these repositories, too."""
    return pipeline(home, "run", path, "--out", path.parent / "out", "--json", *more, serve=["--repos", shelf])


ACCURACY = {"id": "accuracy", "use": "validate.accuracy", "from": {"reference": "model"}}
"""Of the int8 model against the exported one that it was made from: no checkpoint is there to compare with."""
INT8 = {
    "onnx": {"id": "int8", "use": "quantize.onnx", "with": {"per_channel": True, "operators": ["MatMul"]}},
    "openvino": {"id": "int8", "use": "quantize.openvino", "with": {"subset": 24}},
}


@pytest.mark.parametrize("format", EXPORTED)
def test_an_exported_model_enters_the_graph_at_its_format(shelf: Path, home: Path, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        model = {"hub": EXPORTED[format], "revision": COMMIT, "format": format}
    else:
        model = {"folder": "exported", "format": format}
        shutil.copytree(shelf / "models" / EXPORTED[format] / COMMIT, tmp_path / "exported")
    gate = {**ACCURACY, "with": {"max_drop": 0.05, "confidence": 0.5}}
    path = recipe(tmp_path, model, INT8[format], gate)
    done = run(path, shelf, home)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["steps"]["model"]["facts"]["model_type"] == "roberta"
    facts = said["steps"]["accuracy"]["facts"]
    usual = facts["metrics"][facts["metric"]]
    assert facts["rows"] == ROWS and usual["reference"] > 0.5, "a model that knows nothing proves nothing"
    assert usual["candidate"] > usual["reference"] - 0.05
    names = {file.name for file in (Path(said["path"]) / "int8").iterdir()}
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", "cpu_pipeline.json"}


def test_without_its_tokenizer_it_asks_for_one(shelf: Path, home: Path, tmp_path: Path) -> None:
    model = {"hub": EXPORTED["onnx"], "revision": COMMIT, "format": "onnx"}
    done = run(recipe(tmp_path, model, INT8["onnx"], tokenizer=False), shelf, home, "--until", "model")
    assert done.returncode == 2 and "say where one is: `tokenizer:" in done.stderr, done.stderr


def outside(repository: Path) -> None:
    """Point one tensor's data outside the repository."""
    (repository.parent / "secret").write_bytes(b"s" * 4096)
    graph = onnx.load(repository / "model.onnx")
    tensor = next(t for t in graph.graph.initializer if len(t.raw_data) == 4 * 384)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (repository / "model.onnx").write_bytes(graph.SerializeToString())


def cut_onnx(repository: Path) -> None:
    whole = (repository / "model.onnx").read_bytes()
    (repository / "model.onnx").write_bytes(whole[: len(whole) // 2])


def doctype(repository: Path) -> None:
    xml = (repository / "openvino_model.xml").read_text()
    start = xml.index("<net")
    entity = '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/hostname">]>\n'
    (repository / "openvino_model.xml").write_text(xml[:start] + entity + xml[start:])


def cut_weights(repository: Path) -> None:
    whole = (repository / "openvino_model.bin").read_bytes()
    (repository / "openvino_model.bin").write_bytes(whole[:-16])


def settings(repository: Path) -> None:
    card = {"format": "openvino", "needs": [], "runtime": {"CACHE_DIR": str(repository.parent / "cache")}}
    (repository / "cpu_pipeline.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("format", "spoil", "code", "says"),
    [
        ("onnx", outside, 7, "not a relative name inside the model's directory"),
        ("onnx", cut_onnx, 1, "not a valid ONNX model: it is cut"),
        ("openvino", doctype, 1, "not a valid OpenVINO model: it has a DOCTYPE"),
        ("openvino", cut_weights, 1, "it was cut"),
        ("openvino", settings, 7, "may choose its precision alone"),
    ],
)
def test_files_from_outside_are_screened_before_anything_opens_them(
    shelf: Path, tmp_path: Path, format: str, spoil: Callable[[Path], None], code: int, says: str
) -> None:
    repository = tmp_path / "repos" / "models" / EXPORTED[format] / COMMIT
    shutil.copytree(shelf / "models" / EXPORTED[format] / COMMIT, repository)
    spoil(repository)
    model = {"hub": EXPORTED[format], "revision": COMMIT, "format": format}
    # A home of its own: in the shared one the commit's good files are cached.
    done = run(recipe(tmp_path, model, INT8[format]), tmp_path / "repos", tmp_path / "home", "--until", "model")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    failed = next(line for line in done.stderr.splitlines() if says in line)
    assert "model" in failed
