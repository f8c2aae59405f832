"""Models of images and sound, from a recipe with rows in files to int8, compared with transformers' own answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

from cpu_pipeline import backends, tasks
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.runtime.batching import answer

RECIPE = """
model: {{folder: model}}
task: {task}
data:
  calibration: {{file: calibration.jsonl, media: {folder}}}
  validation: {{file: validation.jsonl, media: {folder}}}
stages:
  - {{id: onnx, use: export.onnx}}
  - {{id: openvino, use: export.openvino, from: {{model: model}}}}
  - {{id: torchscript, use: export.torchscript, from: {{model: model}}}}
  - {{id: dynamic, use: quantize.onnx, from: {{model: onnx}}}}
  - {{id: static, use: quantize.onnx, from: {{model: onnx}}, with: {{mode: static, samples: 8, batch: 2}}}}
  - id: onnx-agreement
    use: validate.agreement
    from: {{candidate: onnx, reference: model}}
    with: {{max_difference: 1.0e-4}}
  - id: int8-agreement
    use: validate.agreement
    from: {{candidate: static, reference: model}}
    with: {{same_top: 0.5}}
  - id: accuracy
    use: validate.accuracy
    from: {{candidate: openvino, reference: model}}
    with: {{metric: accuracy, max_drop: 0.0, min_rows: 12}}
  - id: int8-accuracy
    use: validate.accuracy
    from: {{candidate: dynamic, reference: model}}
    with: {{metric: accuracy, max_drop: 0.5, min_rows: 12}}
  - id: speed
    use: validate.latency
    from: {{candidate: onnx, reference: model}}
    with: {{max_median: 60, calls: 2, rounds: 2, processes: 1}}
outputs: [onnx, openvino, torchscript, dynamic, static]
"""
FLOAT = {"onnx": "onnx", "openvino": "openvino", "torchscript": "torchscript"}
INT8 = {"dynamic": "onnx", "static": "onnx"}


@dataclass(frozen=True)
class Built:
    """A recipe that was built."""

    home: Path
    task: tasks.Task
    column: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cpu_pipeline", *arguments]
        return subprocess.run(command, cwd=self.home, capture_output=True, text=True, env=os.environ.copy())

    def output(self, name: str) -> Path:
        return self.home / "artifacts" / "recipe" / "latest" / name

    def rows(self) -> list[dict[str, Any]]:
        return list(self.task.read_rows(self.home / "validation.jsonl"))


CASES: dict[str, tuple[str, Callable[..., Path], dict[str, Any], Callable[..., Path], str]] = {
    "images": ("image-classification", media.vit, {}, media.images, "images"),
    "sound": ("audio-classification", media.wav2vec2, {"seed": 4}, media.sounds, "sounds"),
    "masked sound": ("audio-classification", media.wav2vec2, {"mask": True}, media.sounds, "sounds"),
}


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    name, model, options, rows, folder = CASES[request.param]
    home = tmp_path_factory.mktemp("recipe")
    model(home / "model", **options)
    rows(home / "calibration.jsonl", 10, seed=1)
    rows(home / "validation.jsonl", 16, seed=2)
    (home / "recipe.yaml").write_text(RECIPE.format(task=name, folder=folder))
    task = tasks.get(name)()
    made = Built(home, task, min(task.files))
    done = made.run("run", "recipe.yaml", "--store", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def theirs(built: Built) -> np.ndarray:
    """Ask transformers alone for the logits of each row, one at a time: shape (rows, labels)."""
    import soundfile
    import torch
    import transformers
    from transformers.image_utils import load_image

    model = built.home / "model"
    module = getattr(transformers, built.task.auto_class).from_pretrained(model)
    logits = []
    for row in built.rows():
        if built.column == "image":
            processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
            inputs = processor(load_image(row["image"]), return_tensors="pt")
        else:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
            samples, rate = soundfile.read(row["audio"], dtype="float32", always_2d=True)
            inputs = extractor(samples.mean(axis=1), sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            logits.append(module(**inputs).logits[0].numpy())
    return np.stack(logits)


def ours(built: Built, output: str, format: str) -> np.ndarray:
    """Answer every row with a published output, in batches of 4."""
    folder = built.output(output)
    session = backends.get(format).load(folder, built.task, 1)
    features = built.task.encode(built.rows(), folder)
    return np.stack([
        each["logits"] for each in answer(session, features, built.task, built.task.input_kinds(folder), 4)
    ])  # fmt: skip


def test_every_output_answers_as_transformers_does(built: Built) -> None:
    expected = theirs(built)
    assert len(set(expected.argmax(axis=1))) > 1, "one label tells nothing"
    for output, format in FLOAT.items():
        np.testing.assert_allclose(ours(built, output, format), expected, atol=1e-4, err_msg=output)
        assert ours(built, output, format).argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
    for output, format in INT8.items():
        found = ours(built, output, format)
        assert 0 < np.abs(found - expected).max() < 0.2 * np.abs(expected).max(), output


def test_the_predictions_of_the_build_are_transformers_labels(built: Built) -> None:
    labels = theirs(built).argmax(axis=1).tolist()
    manifest = json.loads((built.output("manifest.json")).read_text())
    found = [read_jsonl(path) for path in (built.home / "store" / "objects").rglob("predictions.jsonl")]
    assert manifest and len(found) >= 2
    assert any([prediction["label"] for prediction in each] == labels for each in found)
    assert all(prediction["name"] == media.ANIMALS[prediction["label"]] for each in found for prediction in each)


def test_an_output_is_complete_and_says_what_it_takes(built: Built) -> None:
    for output in (*FLOAT, *INT8):
        assert {"config.json", "preprocessor_config.json"} <= {path.name for path in built.output(output).iterdir()}
    import openvino

    model = openvino.Core().read_model(built.output("openvino") / "openvino_model.xml")
    shapes = {port.get_any_name(): str(port.partial_shape) for port in model.inputs}
    expected = {"pixel_values": "[?,3,32,32]"} if built.column == "image" else {"input_values": "[?,?]"}
    assert shapes == expected or shapes == {**expected, "attention_mask": "[?,?]"}


def test_a_changed_file_is_built_anew_and_nothing_else(built: Built) -> None:
    again = built.run("plan", "recipe.yaml", "--store", "store")
    assert " cached, 0 to build, 0 depending" in again.stdout, again.stdout
    first, second, *_ = built.rows()
    kept = Path(first[built.column]).read_bytes()
    shutil.copyfile(second[built.column], first[built.column])
    try:
        lines = built.run("plan", "recipe.yaml", "--store", "store").stdout.splitlines()
    finally:
        Path(first[built.column]).write_bytes(kept)
    state = {line.split()[1]: line.split()[0] for line in lines if len(line.split()) > 2}
    assert state["data.validation:files"] == "build" and state["predict:model"] == "depends"
    assert state["onnx"] == state["openvino"] == state["dynamic"] == "cached"
