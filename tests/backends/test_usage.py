"""The lines that a report shows are Python that runs, for images and sound as for text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import media
import models
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stages.conftest import job_for

from cpu_pipeline import backends, stages, tasks
from cpu_pipeline.backends import hf, onnx, openvino, torchscript
from cpu_pipeline.core.artifact import Artifact

MAKERS: dict[str, Any] = {
    "image-classification": (media.vit, media.images, "image"),
    "audio-classification": (media.wav2vec2, media.sounds, "audio"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_lines_for_a_checkpoint_answer_as_its_session(tmp_path: Path, name: str) -> None:
    model, rows, column = MAKERS[name]
    task = tasks.get(name)()
    folder = model(tmp_path / "model")
    [row] = task.read_rows(rows(tmp_path / "rows.jsonl", 1))
    names: dict[str, Any] = {}
    exec(hf.usage(str(folder), task).replace("path/of/a/file", row[column]), names)
    [feature] = task.encode([row], folder)
    session = hf.load(folder, task, 1)
    expected = session({key: np.asarray([feature.inputs[key]]) for key in session.inputs})["logits"]
    np.testing.assert_allclose(names["outputs"].logits.detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["question-answering", *MAKERS])
def test_the_lines_of_every_format_prepare_what_the_task_takes(name: str) -> None:
    task = tasks.get(name)()
    for backend in (hf, onnx, openvino, torchscript):
        text = backend.usage("some/folder", task)
        compile(text, "usage", "exec")
        assert ("tokenizer" in text) == (name == "question-answering")
        assert (f"{type(task).__name__}()" in text) == (name in MAKERS)


def test_text_models_are_run_as_before(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(hf.usage(str(models.make("bert", tmp_path)), tasks.get("question-answering")()), names)
    assert names["outputs"].start_logits.shape[0] == 1


SENTENCES = {"onnx": "export.onnx", "openvino": "export.openvino", "torchscript": "export.torchscript",
             "fastpath": "compile.fastpath"}  # fmt: skip


@pytest.mark.parametrize("format", SENTENCES)
def test_the_lines_for_sentences_give_the_embedding_of_the_model_s_folder(tmp_path: Path, format: str) -> None:
    task = tasks.get("sentence-similarity")(prompt={"text": "old "})
    folder = _with_dense(models.make("minilm", tmp_path / "model", "sentence-similarity"))
    out = tmp_path / format
    out.mkdir()
    stages.get(SENTENCES[format])().run(
        {"model": Artifact("hf", folder, "", {})}, out, job_for("sentence-similarity", task=task)
    )
    names: dict[str, Any] = {}
    exec(backends.get(format).usage(str(out), task), names)
    features = task.encode([names["pair"]], folder)
    session = hf.load(folder, task, 1)
    vectors = session({key: np.asarray([features[0].inputs[key]]) for key in session.inputs})["last_hidden_state"][0]
    np.testing.assert_allclose(names["embedding"], task.embed(features[0], vectors, folder), atol=1e-5)
    assert names["embedding"].shape == (5,)


def _with_dense(folder: Path) -> Path:
    """Add a dense layer after the others."""
    (folder / "3_Dense").mkdir()
    said = {"in_features": models.HIDDEN, "out_features": 5, "activation_function": "torch.nn.modules.activation.ReLU"}
    (folder / "3_Dense" / "config.json").write_text(json.dumps(said))
    layer = torch.nn.Linear(models.HIDDEN, 5)
    save_file(
        {f"linear.{name}": value for name, value in layer.state_dict().items()},
        folder / "3_Dense" / "model.safetensors",
    )
    entry = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    file = folder / "modules.json"
    file.write_text(json.dumps([*json.loads(file.read_text()), entry]))
    return folder


def test_the_lines_for_a_folder_of_sentence_transformers_ask_for_the_options() -> None:
    task = tasks.get("sentence-similarity")
    for options, says in (
        ({}, 'model.encode(["A text", "A text to compare it with"])'),
        ({"prompt": "query"}, "prompt_name='query'"),
        ({"prompt": {"text": "q: "}, "max_seq_length": 64}, "prompt='q: '"),
    ):
        text = hf.usage("some/folder", task(**options))
        compile(text, "usage", "exec")
        assert says in text and ("model.max_seq_length = 64" in text) == ("max_seq_length" in options)
