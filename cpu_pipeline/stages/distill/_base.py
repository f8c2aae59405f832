"""What steps have in common that train a student on a teacher's outputs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from cpu_pipeline.backends import hf
from cpu_pipeline.stages._base import Inputs
from cpu_pipeline.stages.distill._outputs import FORMAT, Reader
from cpu_pipeline.stages.train._base import Batch, Lessons, Training
from cpu_pipeline.tasks._base import Target

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Row, Task


class Distillation(Training, ABC):
    """Options and work that are the same whatever is learned of the teacher."""

    logits_weight: float = Field(default=1.0, ge=0)
    """Weight of the distance from the teacher's outputs: T² · KL of shares, for embeddings one minus the cosine."""
    label_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss of the rows' own labels; rows without one are learned from the teacher alone."""
    temperature: float = Field(default=2.0, ge=1)
    """T: the logits of both are divided by it."""
    dropout: bool = False
    """Whether values are dropped, by the rates of config.json; training on a teacher's outputs does better without."""

    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}, "teacher": {FORMAT}}

    _taught: Any = PrivateAttr(default=None)

    def begin(self, inputs: Inputs, task: Task, out: Path) -> tuple[Any, Path]:
        """Load the student."""
        source = inputs["model"].path
        return hf.checkpoint(source, task), source

    def lessons(self, inputs: Inputs, task: Task, model: Path, rows: Sequence[Row]) -> Lessons:
        """Take every row: those with a label with it, where its loss counts."""
        features = task.encode(rows, model)
        targets = task.targets(rows, features, model) if self.label_weight else []
        labelled = {i for target in targets for i in target.features}
        targets += [Target((i,)) for i in range(len(features)) if i not in labelled]
        self._taught = Reader(inputs["teacher"].path, features)
        return Lessons(task, model, rows, features, targets)

    def loss(self, course: Batch, inputs: Inputs) -> Any:
        """Add up the distances from the teacher, and the loss of the labels."""
        return self.summed(course, *course.runner.answer(course.arrays))

    def summed(self, course: Batch, outputs: Mapping[str, Any], whole: Any) -> Any:
        """Weigh the distance from the teacher's outputs and the loss of the labels."""
        lessons, mask = course.runner.lessons, course.mask
        total: Any = 0.0
        if self.logits_weight:
            teacher = {
                name: self.teacher(course, name)
                for name in self._taught.names
                if not name.startswith("hidden.") and name not in ("query", "key", "value")
            }
            gap = lessons.task.distance(outputs, teacher, mask, course.features, self.temperature, lessons.model)
            total = total + self.logits_weight * gap
        labelled = [n for n, target in enumerate(course.targets) if target.values]
        if self.label_weight and labelled:
            places: list[int] = []
            start = 0
            for target in course.targets:
                if target.values:
                    places += range(start, start + len(target.features))
                start += len(target.features)
            own = lessons.task.loss(
                {name: value[places] for name, value in outputs.items()},
                None if mask is None else mask[places],
                [course.features[i] for i in places],
                [course.targets[n] for n in labelled],
                lessons.model,
            )
            total = total + self.label_weight * own * (len(labelled) / len(course.targets))
        return total

    def teacher(self, course: Batch, name: str) -> Any:
        """Return one output of the teacher for a batch."""
        return self._taught.tensor(name, course.places).to(course.runner.device)
