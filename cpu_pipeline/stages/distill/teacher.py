"""Let a teacher answer the training rows once, so that no epoch and no other student computes it again."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cpu_pipeline.backends import hf
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime.batching import batches
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages.distill import _hidden
from cpu_pipeline.stages.distill._outputs import FORMAT, Writer
from cpu_pipeline.stages.train._base import Lessons, Runner

AT_ONCE = 1024
"""Features that are answered before they are written: bounds what is held."""


class TeacherFacts(Facts):
    """What was answered."""

    rows: Count
    features: Count
    """Sequences; a long row has several."""
    tokens: Count
    """Their tokens, without padding."""
    bytes: Count
    """Bytes of all outputs."""


class DistillTeacher(Stage):
    """Answer the training rows with a teacher and keep its outputs, for every step that distils."""

    facts_model: ClassVar = TeacherFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"teacher": {"hf"}}
    reads: ClassVar[Set[str]] = frozenset({"task", "data.training"})
    packages: ClassVar = ("torch", "transformers", "numpy")

    hidden: tuple[int, ...] = ()
    """Layers whose hidden states to store, from 1; each takes two bytes for each token and number of its width."""
    relations: bool = False
    """Keep queries, keys and values of the last layer: what `distill.hidden` needs where widths differ."""
    batch: int = Field(default=8, ge=1)
    """Sequences in a batch."""

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load with transformers."""
        return {"hf"}

    def run(self, inputs: Inputs, out: Path, job: Job) -> TeacherFacts:
        """Answer every training row, labelled or not, and write the outputs in half precision.

        Raises:
            RecipeError: the model has no such layer.
        """
        import torch

        if job.task is None:
            raise RecipeError("distill.teacher: the recipe names no task; it says what is asked")
        torch.set_num_threads(job.threads)
        task, source = job.task, inputs["teacher"].path
        model = hf.checkpoint(source, task)
        layers = _hidden.count(model)
        if wrong := [layer for layer in self.hidden if not 1 <= layer <= layers]:
            raise RecipeError(f"distill.teacher: hidden: the teacher has no layer {wrong[0]}, but 1 to {layers}")
        rows = task.read_rows(job.data["training"])
        features = task.encode(rows, source)
        runner = Runner(model, Lessons(task, source, rows, features, ()), "float32", "cpu")
        watched = _hidden.Relations(model) if self.relations else None
        writer = Writer(out)
        for first in range(0, len(features), AT_ONCE):
            chunk = features[first : first + AT_ONCE]
            answers: list[tuple[dict[str, Any], set[str]]] = [({}, set())] * len(chunk)
            for numbers in batches(chunk, self.batch, runner.kinds):
                job.progress("sequences", first, len(features))
                found = self._answer(runner, [chunk[i] for i in numbers], watched)
                for number, answer in zip(numbers, found, strict=True):
                    answers[number] = answer
            for feature, (outputs, per_token) in zip(chunk, answers, strict=True):
                writer.add(feature.length, outputs, per_token)
        return TeacherFacts(
            rows=len(rows),
            features=len(features),
            tokens=sum(feature.length for feature in features),
            bytes=writer.close(features, layers),
        )

    def _answer(self, runner: Runner, features: Any, watched: Any) -> list[tuple[dict[str, Any], set[str]]]:
        """Answer one batch; return each feature's outputs, and which of them have a row for each token."""
        import torch

        from cpu_pipeline.runtime.batching import pad

        task, model = runner.lessons.task, runner.lessons.model
        more = {"output_hidden_states": True} if self.hidden else {}
        with torch.inference_mode():
            outputs, whole = runner.answer(pad(features, runner.inputs, runner.kinds), **more)
        extra = {f"hidden.{layer}": whole["hidden_states"][layer].float().numpy() for layer in self.hidden}
        extra |= {name: value.float().numpy() for name, value in (watched.seen if watched else {}).items()}
        found = []
        for row, feature in enumerate(features):
            length = feature.length
            own = {name: value[row].numpy()[: length if task.per_token else None] for name, value in outputs.items()}
            kept = dict(task.taught(feature, own, model))
            per_token = {name for name in kept if name in own and task.per_token} | set(extra)
            found.append(({**kept, **{name: value[row] for name, value in extra.items()}}, per_token))
        return found
