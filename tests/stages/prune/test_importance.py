"""Importance is the Fisher information of masks: what changes nothing matters nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.prune import _choice
from cpu_pipeline.stages.prune.importance import FILE, PruneImportance

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
TASKS = ["question-answering", "text-classification", "token-classification", "sentence-similarity"]


@pytest.mark.parametrize("task", TASKS)
def test_what_does_nothing_goes_first(job: Jobs, tmp_path: Path, task: str) -> None:
    folder = models.make("bert", tmp_path / "hf", task)
    weights = load_torch(folder / "model.safetensors")
    for name, value in weights.items():
        if name.endswith("layer.1.attention.output.dense.weight"):
            value[:, 8:16] = 0  # the second head
        if name.endswith("layer.0.output.dense.weight"):
            value[:, 5] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rows = models.write_rows(tmp_path / "rows.jsonl", task, 12)
    (tmp_path / "out").mkdir()
    made = job(task, data={"training": rows})
    facts = PruneImportance().run({"model": Artifact("hf", folder, "", {})}, tmp_path / "out", made)
    found = load_file(tmp_path / "out" / FILE)
    assert found["heads.1.order"][0] == 1 and found["heads.1.loss"][0] < 1e-8 < found["heads.1.loss"][1]
    assert found["neurons.0.order"][0] == 5 and found["neurons.0.loss"][0] < 1e-8
    assert sorted(found["neurons.1.order"].tolist()) == list(range(64))
    assert facts.heads == 8 and facts.neurons == 128 and facts.layers == 2


def test_is_the_gradient_of_each_rows_own_loss(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    """One pass over a batch gives what one pass over each row gives."""
    task, found = "text-classification", []
    rows = models.write_rows(tmp_path / "rows.jsonl", task, 6)
    for tokens in (16, 4096):  # one row in each batch; all in one
        out = tmp_path / str(tokens)
        out.mkdir()
        made = job(task, data={"training": rows})
        PruneImportance(batch_tokens=tokens).run({"model": checkpoint("bert", task)}, out, made)
        found.append(load_file(out / FILE))
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-3)


def test_units_that_do_the_same_do_not_both_go() -> None:
    gradients = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.5]])
    fisher = gradients.T @ gradients  # the first two are the least, but together they are worth more than the third
    assert _choice.eliminate(fisher) == [0, 2, 1]
    assert _choice.losses(fisher).tolist() == [2.0, 4.0, 6.25]


def test_other_architectures_are_refused(job: Jobs, tmp_path: Path) -> None:
    import transformers

    folder = models.make("bert", tmp_path / "hf", "text-classification")
    config = transformers.AlbertConfig(
        vocab_size=400,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    transformers.AlbertForSequenceClassification(config).save_pretrained(folder)
    rows = models.write_rows(tmp_path / "rows.jsonl", "text-classification", 2)
    with pytest.raises(StageFailed, match="is a albert; heads and neurons can be taken out of bert"):
        PruneImportance().run(
            {"model": Artifact("hf", folder, "", {})}, tmp_path, job("text-classification", data={"training": rows})
        )


def test_rows_without_labels_are_refused(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "1", "text": "a"}\n', encoding="utf-8")
    with pytest.raises(RecipeError, match="has a label"):
        PruneImportance().run(
            {"model": checkpoint("bert", "text-classification")},
            tmp_path,
            job("text-classification", data={"training": rows}),
        )
