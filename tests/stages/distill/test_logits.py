"""A student comes to answer as its teacher does, with or without labels; stopped, it ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import OPTIONS, distil
from pydantic import ValidationError

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.distill.logits import DistillLogits
from cpu_pipeline.tasks import _losses

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
TASKS = ["question-answering", "text-classification", "token-classification", "sentence-similarity"]


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_a_student_comes_closer(
    job: Jobs, checkpoint: Built, student: Any, tmp_path: Path, task: str, labels: bool
) -> None:
    stage = DistillLogits(**OPTIONS, label_weight=0.1 if labels else 0.0)
    out, facts = distil(job, checkpoint("bert", task), student(task), tmp_path, task, stage, labels=labels)
    first, last = facts.curve[0].value, facts.curve[-1].value
    assert first is not None and last is not None and last < 0.8 * first
    assert facts.best is None and facts.scores == []
    assert hf.load(out, job(task).task, 1)


def test_a_teacher_has_nothing_to_learn_of_itself(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    task = "text-classification"
    model = checkpoint("bert", task)
    stage = DistillLogits(**{**OPTIONS, "max_steps": 1})
    _, facts = distil(job, model, model, tmp_path, task, stage)
    assert facts.curve[0].value == pytest.approx(0, abs=1e-5)


def test_the_temperature_keeps_gradients_of_one_size() -> None:
    """T² · KL against torch's own distributions."""
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    for temperature in (1.0, 4.0):
        p = torch.distributions.Categorical(logits=teacher / temperature)
        q = torch.distributions.Categorical(logits=student / temperature)
        wanted = temperature**2 * torch.distributions.kl_divergence(p, q).mean()
        torch.testing.assert_close(_losses.divergence(student, teacher, temperature), wanted)
    kept = torch.tensor([1, 0, 1])
    torch.testing.assert_close(
        _losses.divergence(student, teacher, 1.0, kept), _losses.divergence(student[[0, 2]], teacher[[0, 2]], 1.0)
    )


def test_without_the_teacher_it_is_no_distillation() -> None:
    with pytest.raises(ValidationError, match=r"train\.finetune"):
        DistillLogits(logits_weight=0)
