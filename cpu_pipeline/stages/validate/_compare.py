"""Score both sides' predictions on the same rows, and bound the difference of each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from cpu_pipeline.core.artifact import canonical
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import PREDICTIONS, read_jsonl
from cpu_pipeline.runtime import looks, paired
from cpu_pipeline.stages._base import Inputs
from cpu_pipeline.stages._columns import clusters_of, read_columns
from cpu_pipeline.stages.validate._accuracy_facts import (
    AnswerCounts,
    LookFacts,
    MetricFacts,
    SlicedFacts,
    SliceFacts,
)
from cpu_pipeline.stages.validate._gate import SIDES, Side
from cpu_pipeline.stages.validate._slices import Slices
from cpu_pipeline.tasks._base import Prediction, Row, Score, Task

Predictions = Mapping[str, Prediction]


@dataclass(frozen=True)
class Compared:
    """Both sides, scored on the same rows."""

    task: Task
    rows: Sequence[Row]
    total: int
    """All rows, where looks stopped before."""
    scores: Mapping[Side, Score]
    counts: Mapping[Side, AnswerCounts]
    identical: bool
    clusters: Sequence[str] | None
    """Of each row, where some belong together."""
    columns: Mapping[str, Row]
    """Id of a row -> its columns that are none of the task's own."""
    ends: Sequence[int] = ()
    """Rows that each look has seen, of the looks that were made."""
    planned: int = 1
    """Looks that were planned."""
    order: Sequence[int] = ()
    """Positions of the rows in the order of the looks."""

    @property
    def names(self) -> list[str]:
        """List the metrics that both sides have."""
        ours, theirs = self.scores["candidate"].metrics, self.scores["reference"].metrics
        return [name for name in ours if name in theirs]

    def metric(self, name: str, level: float, confidence: float, among: Sequence[int] | None = None) -> MetricFacts:
        """Compare both sides in one metric.

        Args:
            name: the metric.
            level: confidence of the one-sided bounds.
            confidence: that of the two-sided interval.
            among: positions of the rows; all by default.
        """
        found, ours, theirs = self._bounds(name, (level, (1 + confidence) / 2), among)
        return MetricFacts(
            candidate=ours,
            reference=theirs,
            difference=found.value,
            low=found.lower[1],
            high=found.upper[1],
            better="lower" if name in self.task.lower_is_better else "higher",
            lower=found.lower[0],
            upper=found.upper[0],
            method=found.method,
            deviation=found.deviation,
            gained=found.gained,
            lost=found.lost,
        )

    def slice(self, name: str, levels: Sequence[float], among: Sequence[int]) -> SliceFacts:
        """Compare both sides in one metric on one slice, with bounds at several levels."""
        found, ours, theirs = self._bounds(name, levels, among)
        return SliceFacts(
            rows=len(among),
            candidate=ours,
            reference=theirs,
            difference=found.value,
            deviation=found.deviation,
            lower=list(found.lower),
            upper=list(found.upper),
        )

    def _bounds(
        self, name: str, levels: Sequence[float], among: Sequence[int] | None
    ) -> tuple[paired.Bounds, float, float]:
        ours, theirs = self.scores["candidate"].rows, self.scores["reference"].rows
        clusters = self.clusters
        if among is not None:
            ours, theirs = [ours[i] for i in among], [theirs[i] for i in among]
            clusters = None if clusters is None else [clusters[i] for i in among]
        aggregate = self.task.aggregate
        found = paired.compare(
            ours,
            theirs,
            name,
            aggregate,
            levels,
            packed=(self.task.packed(ours), self.task.packed(theirs)),
            clusters=clusters,
            identical=self.identical,
        )
        if among is None:
            return found, self.scores["candidate"].metrics[name], self.scores["reference"].metrics[name]
        return found, aggregate(ours, name), aggregate(theirs, name)

    def look(self, number: int, names: Sequence[str], confidence: float) -> LookFacts:
        """Compare at one look, from 1, at the level that it may spend."""
        quantile = looks.quantiles(self.planned, round(1 - confidence, 12))[number - 1]
        among = sorted(self.order[: self.ends[number - 1]])
        level = NormalDist().cdf(quantile)
        metrics = {name: self.metric(name, level, confidence, among) for name in names}
        return LookFacts(rows=len(among), quantile=quantile, metrics=metrics)

    def sliced(self, by: Slices, name: str, confidence: float) -> SlicedFacts:
        """Compare every slice by one property."""
        groups = by.divide(self.rows, self.columns, self.task)
        levels = [1 - (1 - confidence) / count for count in range(1, len(groups) + 1)]
        return SlicedFacts(
            metric=name,
            better="lower" if name in self.task.lower_is_better else "higher",
            slices={group: self.slice(name, levels, among) for group, among in groups.items()},
        )


def compared(task: Task, inputs: Inputs, data: Path, cluster: str | None, planned: int = 1) -> Compared:
    """Read and score both sides.

    Args:
        task: the task.
        inputs: `candidate` and `reference`, predictions of all rows, or of those of the first looks.
        data: the rows.
        cluster: the column by which rows belong together; None where each stands alone.
        planned: how many looks were planned.

    Raises:
        RecipeError: a row has no label, or no such column.
    """
    rows: list[Row] = list(read_jsonl(data))
    total = len(rows)
    columns = read_columns(data)
    said = {side: _read(inputs[side].path) for side in SIDES}
    clusters = clusters_of(rows, columns, cluster)
    ends: list[int] = []
    order: list[int] = []
    if planned > 1:
        order = looks.order(rows, clusters)
        ends = looks.ends(total, planned, None if clusters is None else [clusters[i] for i in order])
        seen = min(len(predictions) for predictions in said.values())
        ends = ends[: 1 + next((number for number, end in enumerate(ends) if end >= seen), len(ends) - 1)]
        # One side may have been predicted further, for another comparison.
        kept = {str(rows[i]["id"]) for i in order[: ends[-1]]}
        known = {str(row["id"]) for row in rows}
        said = {side: {k: p for k, p in one.items() if k in kept or k not in known} for side, one in said.items()}
        places = {old: new for new, old in enumerate(sorted(order[: ends[-1]]))}
        rows = [rows[i] for i in places]
        clusters = None if clusters is None else [clusters[i] for i in places]
        order = [places[i] for i in order[: ends[-1]]]
    scores: dict[Side, Score] = {side: task.score(rows, said[side]) for side in SIDES}
    counts: dict[Side, AnswerCounts] = {
        side: AnswerCounts.model_validate({**_counted(rows, said[side]), **scores[side].counts}) for side in SIDES
    }
    identical = canonical(said["candidate"]) == canonical(said["reference"])
    return Compared(task, rows, total, scores, counts, identical, clusters, columns, ends, planned, order)


def _read(path: Path) -> dict[str, Prediction]:
    return {str(answer["id"]): answer for answer in read_jsonl(path / PREDICTIONS)}


def _counted(rows: Sequence[Row], predictions: Predictions) -> dict[str, int]:
    """Count what makes a comparison incomplete, whatever a task counts itself."""
    answered = [predictions[row["id"]] for row in rows if row["id"] in predictions]
    return {
        "missing": len(rows) - len(answered),
        "unknown": len(predictions) - len(answered),
        "nan": sum(bool(answer.get("nan")) for answer in answered),
    }


def constant_rows(count: int, same: str) -> RecipeError:
    """Return the error of rows that all have one right answer."""
    return RecipeError(
        f"data.validation: all {count} rows have {same}: no metric tells a good model from one that always answers so; "
        "take rows that differ, or name the column that has the right answers (`columns:`)"
    )
