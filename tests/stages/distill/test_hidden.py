"""A student comes to compute as its teacher does, layer by layer, or in how its tokens relate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import OPTIONS, distil

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.distill import _hidden
from cpu_pipeline.stages.distill.hidden import DistillHidden

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
TASK = "text-classification"


def test_learns_the_states_of_the_layers_at_the_same_height(
    job: Jobs, checkpoint: Built, student: Any, tmp_path: Path
) -> None:
    stage = DistillHidden(**OPTIONS)
    _, facts = distil(
        job, checkpoint("bert", TASK), student(TASK, num_hidden_layers=1), tmp_path, TASK, stage, hidden=(1, 2)
    )
    first, last = facts.curve[0].value, facts.curve[-1].value
    assert first is not None and last is not None and last < 0.7 * first


def test_learns_relations_of_another_width(job: Jobs, checkpoint: Built, student: Any, tmp_path: Path) -> None:
    narrow = student(TASK, hidden_size=16, intermediate_size=32)
    stage = DistillHidden(**OPTIONS, match="relations", relation_heads=4)
    _, facts = distil(job, checkpoint("bert", TASK), narrow, tmp_path, TASK, stage, relations=True)
    first, last = facts.curve[0].value, facts.curve[-1].value
    assert first is not None and last is not None and last < 0.8 * first


@pytest.mark.parametrize(
    ("options", "config", "keep", "error", "says"),
    [
        ({}, {}, {}, RecipeError, "no layer is kept"),
        ({"match": "relations"}, {}, {}, RecipeError, "relations: true"),
        ({"match": "relations"}, {}, {"relations": True}, StageFailed, "12 does not divide the width 32"),
        ({}, {"hidden_size": 16}, {"hidden": (2,)}, StageFailed, "match: relations"),
    ],
)
def test_what_does_not_fit_says_what_to_set(
    job: Jobs,
    checkpoint: Built,
    student: Any,
    tmp_path: Path,
    options: Any,
    config: Any,
    keep: Any,
    error: Any,
    says: str,
) -> None:
    stage = DistillHidden(**{**OPTIONS, "max_steps": 1, **options})
    with pytest.raises(error, match=says):
        distil(job, checkpoint("bert", TASK), student(TASK, **config), tmp_path, TASK, stage, **keep)


def test_gaps_count_real_tokens_alone() -> None:
    states, teacher = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    other = states.clone()
    other[1, 2:] = 100
    assert _hidden.state_gap(states, teacher, mask) == _hidden.state_gap(other, teacher, mask)
    torch.testing.assert_close(
        _hidden.relation_gap(states, teacher, mask, 2), _hidden.relation_gap(other, teacher, mask, 2)
    )
    assert _hidden.state_gap(teacher, teacher, mask) == 0
    assert _hidden.relation_gap(teacher, teacher, mask, 2) == pytest.approx(0, abs=1e-6)
