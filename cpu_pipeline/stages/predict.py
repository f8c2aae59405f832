"""Answer every validation row with one model, once for all gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.jsonl import PREDICTIONS, write_jsonl
from cpu_pipeline.runtime.batching import answer, extent
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.tasks._base import Feature, Prediction, Row

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Session
    from cpu_pipeline.runtime.batching import Kinds
    from cpu_pipeline.tasks._base import Task

BATCH = 8
"""Features in a batch: part of the answer, for a model quantized dynamically takes its scales from the whole batch."""
TOKENS = 65_536
"""Tokens answered before they are decoded; bounds what outputs with a vector for each token hold."""


class PredictFacts(Facts):
    """What was answered."""

    rows: Count
    """Rows, each with one prediction."""
    features: Count
    """Sequences that the model was run on; a long row has several."""
    tokens: Count
    """Tokens of all sequences, without padding."""
    nan: Count
    """Predictions that rest on NaN or an infinity."""


class Predict(Stage):
    """Answer the validation rows with a model."""

    facts_model: ClassVar = PredictFacts
    takes: ClassVar = {"model": frozenset(backends.names())}
    reads = frozenset({"task", "data.validation"})
    packages = ("numpy",)
    internal = True

    def gives(self) -> str:
        """Name the format of the output."""
        return "predictions"

    def host(self) -> Host:
        """Say that rounding, and with it a close answer, depends on the instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name the backend of the model's format."""
        return frozenset({formats["model"]})

    def environment(self, backends: Mapping[str, str]) -> str:
        """Run beside the model's backend: predictions cross environments as files."""
        return next(iter(backends.values()), "default")

    def run(self, inputs: Inputs, out: Path, job: Job) -> PredictFacts:
        """Write one prediction per row, in the rows' order; an answer of NaN or infinity is marked `nan`."""
        if job.task is None:
            raise StageFailed("predicting needs the recipe's task")
        task, model = job.task, inputs["model"]
        rows = task.read_rows(job.data["validation"])
        session, kinds = job.load(model), task.input_kinds(model.path)
        predictions: list[Prediction] = []
        lengths: list[int] = []
        step = task.rows_at_once or max(1, len(rows))
        for first in range(0, len(rows), step):
            job.progress("rows", first, len(rows))
            chunk = rows[first : first + step]
            features = task.encode(chunk, model.path)
            lengths += [extent(feature, kinds) for feature in features]
            told = partial(_tell, job, first, len(rows))
            predictions += _predict(task, model.path, session, kinds, chunk, features, told)
        write_jsonl(out / PREDICTIONS, predictions)
        return PredictFacts(
            rows=len(rows),
            features=len(lengths),
            tokens=sum(lengths),
            nan=sum(bool(prediction.get("nan")) for prediction in predictions),
        )


def _tell(job: Job, before: int, total: int, answered: int) -> None:
    job.progress("rows", before + answered, total)


def _scaled(told: Callable[[int], None], before: int, rows: int, features: int, run: int) -> None:
    """Tell rows by the features that were run: a long row has several."""
    told(before + rows * run // features)


def _predict(
    task: Task,
    model: Path,
    session: Session,
    kinds: Kinds,
    rows: Sequence[Row],
    features: Sequence[Feature],
    told: Callable[[int], None],
) -> list[Prediction]:
    """Answer rows with the features made of them, in groups of rows of similar length; tell how many are answered."""
    predictions: list[Prediction] = [{}] * len(rows)
    answered = 0
    for group in _groups(features, len(rows)):
        part = [replace(features[i], row=position) for position, (_, own) in enumerate(group) for i in own]
        scaled = partial(_scaled, told, answered, len(group), len(part))
        answers = answer(session, part, task, kinds, BATCH, scaled)
        answered += len(group)
        decoded = task.decode([rows[number] for number, _ in group], part, answers, model)
        for (number, _), prediction in zip(group, decoded, strict=True):
            predictions[number] = prediction
    return predictions


def _groups(features: Sequence[Feature], rows: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Group rows, longest first, until a group has TOKENS tokens: lists of (row, numbers of its features)."""
    own: list[list[int]] = [[] for _ in range(rows)]
    for number, feature in enumerate(features):
        own[feature.row].append(number)
    order = sorted(range(rows), key=lambda row: (-max((features[i].length for i in own[row]), default=0), row))
    group: list[tuple[int, list[int]]] = []
    tokens = 0
    for row in order:
        group.append((row, own[row]))
        tokens += sum(features[i].length for i in own[row])
        if tokens >= TOKENS:
            yield group
            group, tokens = [], 0
    if group:
        yield group
