"""Which task a checkpoint is for, and whether it fits one, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens

HEADS = {
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
}
"""Part of an architecture's name -> task."""


def task_of(config: Mapping[str, Any]) -> str | None:
    """Name the task of a checkpoint; None where its head is that of no task here."""
    for architecture in architectures(config):
        for part, task in HEADS.items():
            if part in architecture:
                # Wav2Vec2 and its kin classify sequences of sound under the name of those of text.
                return "audio-classification" if task == "text-classification" and "conv_kernel" in config else task
    return None


def architectures(config: Mapping[str, Any]) -> list[str]:
    """List the architectures that config.json names."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def check(auto_class: str, max_seq_length: int | None, model: Path) -> None:
    """Check that a model's directory has the head of a task, and as many positions as the task feeds it tokens.

    Args:
        auto_class: transformers' class that loads the head; `AutoModel` fits every model.
        max_seq_length: tokens of a row that the recipe sets; None where it sets none, and the model decides.
        model: the directory.

    Raises:
        RecipeError: it has not.
    """
    config = _tokens.read_config(model)
    part = auto_class.removeprefix("AutoModel")
    names = architectures(config)
    fitting = {part, "ForSequenceClassification"} if part == "ForAudioClassification" else {part}
    if part and names and not any(each in name for name in names for each in fitting):
        task = task_of(config)
        hint = f"`task: {task}` fits it" if task else "choose a model that was trained for this task"
        raise RecipeError(f"config.json: the model is a {names[0]}, and this task needs one `...{part}`; {hint}")
    limit = _tokens.positions(model)
    if max_seq_length is not None and limit is not None and max_seq_length > limit:
        raise RecipeError(f"max_seq_length is {max_seq_length}, but the model has {limit} positions; lower it")
