"""A BERT of one layer in whose feed-forward part quantization breaks one operator, as both runtimes' float models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest

from cpu_pipeline.backends import onnx, openvino
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Job, Stage
from cpu_pipeline.stages.export.onnx import ExportOnnx
from cpu_pipeline.stages.export.openvino import ExportOpenvino
from cpu_pipeline.tasks.question_answering import QuestionAnswering

TASK = QuestionAnswering(max_seq_length=64, doc_stride=16)
VNNI = ("x86_64", "avx2", "avx512f", "avx512_vnni")
BROKEN = "encoder.layer.0.intermediate.dense"
BACKENDS: dict[str, Any] = {"onnx": onnx, "openvino": openvino}
EXPORTS: dict[str, Stage] = {"onnx": ExportOnnx(), "openvino": ExportOpenvino()}
OPTIONS: dict[str, Any] = {"onnx": {"operators": ["MatMul"]}, "openvino": {"subset": 4, "fast_bias_correction": True}}


def job(folder: Path, scratch: Path) -> Job:
    return Job(
        load=lambda artifact: BACKENDS[artifact.format].load(artifact.path, TASK, 1),
        timer=lambda _: pytest.fail("nothing is timed here"),
        task=TASK,
        data={role: folder / f"{role}.jsonl" for role in ("calibration", "selection")},
        scratch=scratch,
        threads=1,
        isa=VNNI,
    )


def make(folder: Path) -> Path:
    """Write both float models of a BERT, and rows whose right answers are the float model's own.

    In one operator a column of the weights is 1,000 times as large, and what it multiplies 1,000 times as small.
    """
    from safetensors.torch import load_file, save_file

    models.make("bert", folder / "hf", num_hidden_layers=1, hidden_size=64, intermediate_size=128)
    weights = load_file(folder / "hf" / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith(f"{BROKEN}.weight"):
            tensor[:, 7:13] *= 1000
        if "layer.0.attention.output.LayerNorm" in name:
            tensor[7:13] /= 1000
    save_file(weights, folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    for name, stage in EXPORTS.items():
        (folder / name).mkdir()
        given = {"model": Artifact("hf", folder / "hf", "", {})}
        stage.run(given, folder / name, replace(job(folder, folder), data={}))
    models.write_rows(folder / "calibration.jsonl", "question-answering", 12)
    rows = models.rows("question-answering", 32, seed=1)
    features = TASK.encode(rows, folder / "onnx")
    answers = answer(onnx.load(folder / "onnx", TASK, 1), features, TASK, TASK.input_kinds(folder / "onnx"), 8)
    right = TASK.decode(rows, features, answers, folder / "onnx")
    with (folder / "selection.jsonl").open("w", encoding="utf-8") as file:
        for row, said in zip(rows, right, strict=True):
            given = {"text": [said["prediction_text"]], "answer_start": [said["start"]]}
            file.write(json.dumps({**row, "answers": given}) + "\n")
    return folder
