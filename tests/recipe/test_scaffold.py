"""Which task a checkpoint is for, from its config.json alone."""

from __future__ import annotations

from typing import Any

import pytest

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.recipe.scaffold import COLUMNS, _task


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, "text-classification"),
        ({"architectures": ["ViTForImageClassification"]}, "image-classification"),
        ({"architectures": ["ASTForAudioClassification"]}, "audio-classification"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"], "conv_kernel": [10, 3]}, "audio-classification"),
    ],
)
def test_the_architecture_tells_the_task(config: dict[str, Any], task: str) -> None:
    assert _task(config, {}, False, "someone/model") == task


def test_what_tells_no_task_is_asked_for() -> None:
    with pytest.raises(RecipeError, match=r"someone/model: .* set it with --task"):
        _task({"architectures": ["Odd"]}, {}, False, "someone/model")


def test_every_task_has_its_columns() -> None:
    assert sorted(COLUMNS) == tasks.names()
    for name, columns in COLUMNS.items():
        assert columns.keys() <= tasks.get(name).columns.keys()
