"""Our embeddings of texts with a folder, made as a build makes them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cpu_pipeline import tasks
from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.model import LoadModel

TOLERANCE = 2e-5
"""Largest difference of a number, as a part of the vector's largest."""


def ours(folder: Path, texts: Sequence[str], **options: Any) -> np.ndarray:
    """Embed texts: the folder loaded, texts encoded, run in batches, pooled."""
    task = tasks.get("sentence-similarity")(**options)
    task.check_model(folder)
    rows = [{"id": str(i), "sentence1": text, "sentence2": "red"} for i, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch)
        LoadModel().run({"files": Artifact("files", folder, "", {})}, model, Job(load=None, timer=None))  # type: ignore[arg-type]
        features = task.encode(rows, model)
        answers = answer(hf.load(model, task, 1), features, task, task.input_kinds(model), 4)
        pairs = [*zip(features, answers, strict=True)][::2]
        return np.stack([task.embed(feature, out["last_hidden_state"], model) for feature, out in pairs])
