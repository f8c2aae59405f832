"""The lines that a report shows are Python that runs, for images and sound as for text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import media
import models
import numpy as np
import pytest

from cpu_pipeline import tasks
from cpu_pipeline.backends import hf, onnx, openvino, torchscript

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
