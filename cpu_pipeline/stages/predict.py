"""Answer every validation row with one model, once for all gates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.jsonl import PREDICTIONS, read_jsonl, write_jsonl
from cpu_pipeline.runtime import looks
from cpu_pipeline.runtime.batching import answer, extent
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._columns import clusters_of, read_columns
from cpu_pipeline.tasks._base import Feature, Prediction, Row

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Session
    from cpu_pipeline.runtime.batching import Kinds
    from cpu_pipeline.tasks._base import Task

DECISION = "decision.json"
"""What a look writes: whether it has seen enough, and nothing else, so that nothing else is computed anew."""
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

    part: int | None = Field(default=None, ge=1)
    """Answer the rows of the first looks alone, up to this one; all rows unless given. The graph sets it."""
    parts: int = Field(default=1, ge=1)
    """How many looks there are."""
    cluster: str | None = None
    """Column whose equal values are never divided between looks."""

    facts_model: ClassVar = PredictFacts
    takes: ClassVar = {
        "model": frozenset(backends.names()),
        "before": frozenset({"predictions"}),
        "decision": frozenset({"decision"}),
    }
    optional: ClassVar = frozenset({"before", "decision"})
    reads = frozenset({"task", "data.validation"})
    packages = ("numpy",)
    internal = True

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out options that are newer than many a store, where they are not set: keys stay as they were."""
        options: dict[str, Any] = dump(self)
        return options if self.part is not None else {}

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
        """Write one prediction per row, in the rows' order; an answer of NaN or infinity is marked `nan`.

        Of a part, what was predicted before is taken over; where the gate has seen enough, nothing is added to it.
        """
        if job.task is None:
            raise StageFailed("predicting needs the recipe's task")
        task, model = job.task, inputs["model"]
        every = task.read_rows(job.data["validation"])
        before = read_jsonl(inputs["before"].path / PREDICTIONS) if "before" in inputs else []
        if "decision" in inputs and decided(inputs["decision"].path):
            write_jsonl(out / PREDICTIONS, before)
            return PredictFacts(rows=0, features=0, tokens=0, nan=0)
        rows = self._own(every, job, {str(line["id"]) for line in before})
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
        known = {str(line["id"]): line for line in (*before, *predictions)}
        write_jsonl(out / PREDICTIONS, [known[str(row["id"])] for row in every if str(row["id"]) in known])
        return PredictFacts(
            rows=len(rows),
            features=len(lengths),
            tokens=sum(lengths),
            nan=sum(bool(prediction.get("nan")) for prediction in predictions),
        )

    def _own(self, rows: list[Row], job: Job, before: Set[str]) -> list[Row]:
        """Take the rows of this part that were not predicted before."""
        if self.part is None:
            return rows
        clusters = clusters_of(rows, read_columns(job.data["validation"]), self.cluster)
        order = looks.order(rows, clusters)
        ends = looks.ends(len(rows), self.parts, None if clusters is None else [clusters[i] for i in order])
        wanted = sorted(order[: ends[self.part - 1]])
        return [rows[i] for i in wanted if str(rows[i]["id"]) not in before]


def decided(path: Path) -> bool:
    """Read whether a look has seen enough."""
    return bool(json.loads((path / DECISION).read_text(encoding="utf-8"))["decided"])


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
