"""Fine-tune a checkpoint on labelled rows: from one of the task, or from a base model with a new head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from cpu_pipeline.backends import hf
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Inputs
from cpu_pipeline.stages.train._base import Batch, Lessons, Training

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Row, Task


class TrainFinetune(Training):
    """Fine-tune a checkpoint on the training rows with the task's own loss."""

    new_head: bool = False
    """Put a new head above the encoder, with random weights: for a base model, or for other labels."""
    labels: tuple[str, ...] = ()
    """Names of the new head's labels, in the order of its outputs; for tasks that have labels."""

    version: ClassVar = 1

    @model_validator(mode="after")
    def _labels_need_a_head(self) -> TrainFinetune:
        if self.labels and not self.new_head:
            raise ValueError("labels: they are of a new head; set `new_head: true`, or leave them out")
        return self

    def headless(self) -> bool:
        """Say that a new head needs none before."""
        return self.new_head

    def begin(self, inputs: Inputs, task: Task, out: Path) -> tuple[Any, Path]:
        """Load the checkpoint, or its encoder under a new head."""
        source = inputs["model"].path
        if not self.new_head:
            return hf.checkpoint(source, task), source
        return _with_new_head(source, task, self.labels, out), out

    def lessons(self, inputs: Inputs, task: Task, model: Path, rows: Sequence[Row]) -> Lessons:
        """Take the rows that have a label."""
        features = task.encode(rows, model)
        return Lessons(task, model, rows, features, task.targets(rows, features, model))

    def loss(self, course: Batch, inputs: Inputs) -> Any:
        """Compute the task's loss."""
        lessons = course.runner.lessons
        outputs, _ = course.runner.answer(course.arrays)
        return lessons.task.loss(outputs, course.mask, course.features, course.targets, lessons.model)


def _with_new_head(source: Path, task: Task, labels: Sequence[str], out: Path) -> Any:
    """Load an encoder under a new head, and write its configuration and tokenizer into `out`.

    Raises:
        RecipeError: the architecture has no such head, or the checkpoint is broken.
    """
    import torch
    import transformers

    repo_files.carry(source, out)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    more: dict[str, Any] = {}
    if labels:
        more = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config |= {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": more["label2id"]}
        config.pop("num_labels", None)
        config.pop("problem_type", None)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = getattr(transformers, task.auto_class).from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            attn_implementation="sdpa",
            **more,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RecipeError(f"new_head: {task.auto_class} does not take this checkpoint: {error}") from error
    config["architectures"] = [type(model).__name__]
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return model
