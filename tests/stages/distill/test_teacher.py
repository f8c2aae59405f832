"""A teacher's outputs are what it gives, in half precision, and of no use to other tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.distill._outputs import Reader
from cpu_pipeline.stages.distill.teacher import DistillTeacher, TeacherFacts

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
TASKS = ["question-answering", "text-classification", "token-classification", "sentence-similarity"]


def teach(job: Jobs, model: Artifact, out: Path, task: str, **options: Any) -> tuple[Job, TeacherFacts]:
    out.mkdir()
    made = job(task, data={"training": models.write_rows(out.parent / "rows.jsonl", task, 10)})
    return made, DistillTeacher(**options).run({"teacher": model}, out, made)


@pytest.mark.parametrize("task", TASKS)
def test_keeps_what_the_teacher_gives(job: Jobs, checkpoint: Built, tmp_path: Path, task: str) -> None:
    model = checkpoint("bert", task)
    made, facts = teach(job, model, tmp_path / "out", task, hidden=(1, 2), relations=True, batch=3)
    own: Any = made.task
    features = own.encode(own.read_rows(made.data["training"]), model.path)
    reader = Reader(tmp_path / "out", features)
    assert facts.features == len(features) and reader.layers == 2
    session = hf.load(model.path, own, 1)
    numbers = [len(features) - 1, 0, 4]
    for row, number in enumerate(numbers):
        length = features[number].length
        alone = session(pad([features[number]], session.inputs, own.input_kinds(model.path)))
        outputs = {name: value[0] for name, value in alone.items()}
        for name, value in own.taught(features[number], outputs, model.path).items():
            found = reader.tensor(name, numbers)[row].numpy()
            found = found[:length] if name in own.outputs and own.per_token else found
            np.testing.assert_allclose(found, value, atol=2e-3, rtol=2e-3)
    checkpointed = hf.checkpoint(model.path, own)
    arrays = pad([features[0]], session.inputs, own.input_kinds(model.path))
    with torch.no_grad():
        states = checkpointed(**{n: torch.from_numpy(a) for n, a in arrays.items()}, output_hidden_states=True)
    for layer in (1, 2):
        np.testing.assert_allclose(
            reader.tensor(f"hidden.{layer}", [0])[0], states.hidden_states[layer][0], atol=5e-3, rtol=2e-3
        )
    assert reader.tensor("query", [0, 1]).shape[-1] == models.HIDDEN


def test_equal_inputs_give_equal_bytes(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        teach(job, checkpoint("bert", "text-classification"), tmp_path / name / "out", "text-classification")
    assert digest_tree(tmp_path / "a" / "out") == digest_tree(tmp_path / "b" / "out")


def test_other_tokens_are_refused(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    task = "text-classification"
    made, _ = teach(job, checkpoint("bert", task), tmp_path / "out", task)
    own: Any = made.task
    others = own.encode(own.read_rows(made.data["training"]), checkpoint("roberta", task).path)
    with pytest.raises(RecipeError, match="same tokenizer"):
        Reader(tmp_path / "out", others)


def test_a_layer_that_is_not_there_is_refused(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no layer 3, but 1 to 2"):
        teach(job, checkpoint("bert", TASKS[1]), tmp_path / "out", TASKS[1], hidden=(3,))
