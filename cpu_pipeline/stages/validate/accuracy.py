"""Is the candidate as right as the reference? Both answered the same rows; compare their metrics, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cpu_pipeline.core.artifact import canonical
from cpu_pipeline.core.errors import GateFailed, PipelineError, RecipeError
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table, number
from cpu_pipeline.core.jsonl import PREDICTIONS, SCORES, read_jsonl, write_jsonl
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.runtime.intervals import paired_difference
from cpu_pipeline.stages._base import Count, Facts, Figure, Inputs, Job, Verdict
from cpu_pipeline.stages.validate import _losses
from cpu_pipeline.stages.validate._bounds import cannot_fail
from cpu_pipeline.stages.validate._gate import SIDES, Gate, Side, task_of
from cpu_pipeline.tasks._base import Score, Task
from cpu_pipeline.tasks._tokens import unlabelled

SUCCESSOR = 0.01
"""Share of the metric by which an artifact may fall behind the one in service, where the gate allows no drop itself."""
ROUNDING = 1e-9
"""What sums of fractions may be off by: a drop of exactly max_drop passes."""


DIGITS = 4
"""Decimals of a metric."""


class MetricFacts(Facts):
    """One metric of both sides, as fractions."""

    candidate: Figure
    reference: Figure
    difference: Figure
    """Candidate less reference."""
    low: Figure
    """Lower end of the bootstrap interval of the difference."""
    high: Figure
    """Upper end of it."""
    better: Literal["higher", "lower"] = "higher"
    """Whether more is better, or less, as of an error."""


class AnswerCounts(Facts):
    """How many rows of one side were answered how; a task adds counts of its own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Count]

    missing: Count
    """Rows without a prediction."""
    unknown: Count
    """Predictions of no row."""
    nan: Count
    """Predictions that rest on NaN or an infinity."""


class AccuracyFacts(Facts):
    """Metrics of both sides on the same rows."""

    rows: Count
    """Rows that both sides answered."""
    metric: str
    """The task's usual metric."""
    confidence: float
    """Level of the intervals, 0 to 1."""
    metrics: dict[str, MetricFacts]
    """Name of a metric -> its figures, the usual one first."""
    counts: dict[Side, AnswerCounts]
    about: str = ""
    """How the task scored, where that depends on data and model."""
    constant: str = ""
    """The one answer that the reference gives to every row, in words; empty where its answers differ."""


class ValidateAccuracy(Gate):
    """Compare the candidate's metric with the reference's on the same rows."""

    metric: str | None = None
    """Metric that is judged; by default the task's usual one. All of the task's are reported."""
    max_drop: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How much worse than the reference the candidate may be, as a fraction (0.01 is one point or one percent; see
    drop); of an error such as mse: how much larger."""
    drop: Literal["absolute", "relative"] = "absolute"
    """Whether max_drop is a difference of metrics or a share of the reference's metric."""
    at_least: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)
    """Least value of the candidate's metric, as a fraction."""
    at_most: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest value of the candidate's metric, where that is an error such as mse."""
    min_rows: int = Field(default=100, ge=1)
    """Fewest rows on which the comparison may rest."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the bootstrap interval of the paired difference, which is reported beside each metric."""

    facts_model: ClassVar = AccuracyFacts
    through: ClassVar = dict.fromkeys(SIDES, "predict")
    reads: ClassVar = frozenset({"task", "data.validation"})
    packages: ClassVar = ("numpy", "scipy")
    version: ClassVar = 2
    bounds: ClassVar = frozenset({"max_drop", "at_least", "at_most"})
    remedies: ClassVar = ("max_drop", "at_least", "at_most", "min_rows")
    unkeyed: ClassVar = frozenset({*bounds, "metric", "drop", "min_rows"})

    @model_validator(mode="after")
    def _names_the_error(self) -> Self:
        if self.at_most is not None and self.metric is None:
            raise ValueError("at_most: name the `metric` that it bounds, an error such as mse")
        return self

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say whether the task has the metric with this model, and whether the bounds fit the metric's direction."""
        known = task.metrics_of(model)
        if self.metric is None:
            return [] if not known else self._toothless(known[0], task)
        if not (task.has_metric(self.metric) if model is None else self.metric in known):
            near = did_you_mean(self.metric, known)
            return [f"metric: the task has no metric `{self.metric}`{near}; it has: {', '.join(known)}"]
        return [*self._misplaced(self.metric, self.metric in task.lower_is_better), *self._toothless(self.metric, task)]

    def _toothless(self, name: str, task: Task) -> list[str]:
        """Say which bound no candidate can fail, whatever it answers."""
        return [] if name in task.lower_is_better else cannot_fail(name, task.least(name), self.max_drop, self.at_least)

    def _misplaced(self, name: str, lower: bool) -> list[str]:
        """Say which bound does not fit a metric of this direction."""
        if lower:
            return [] if self.at_least is None else [f"at_least: {name} is an error, less is better; use `at_most`"]
        return [] if self.at_most is None else [f"at_most: of {name} more is better; use `at_least`"]

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Tell too few rows, rows without the right answer, and rows that all have one."""
        task = task_of(job, "accuracy")
        if "validation" not in job.data:
            return
        rows = read_jsonl(job.data["validation"])
        if len(rows) < self.min_rows:
            yield GateFailed(f"{len(rows)} rows, at least {self.min_rows} asked")
        if task.gold is not None and (bare := next((row for row in rows if task.gold not in row), None)) is not None:
            yield unlabelled(bare, task.gold)
        elif task.gold is not None and len(rows) > 1 and len({canonical(row[task.gold]) for row in rows}) == 1:
            yield _constant_rows(len(rows), f"{task.gold} {rows[0][task.gold]}")

    def run(self, inputs: Inputs, out: Path, job: Job) -> AccuracyFacts:
        """Score both sides; keep each row's scores, and every metric with the interval of its difference.

        Raises:
            RecipeError: the task has no such metric, or a row has no label.
        """
        task = task_of(job, "accuracy")
        if wrong := self.misfits(task):
            raise RecipeError("; ".join(wrong))
        rows = read_jsonl(job.data["validation"])
        scores: dict[Side, Score] = {}
        counts: dict[Side, AnswerCounts] = {}
        for side in SIDES:
            predictions = {answer["id"]: answer for answer in read_jsonl(inputs[side].path / PREDICTIONS)}
            scores[side] = task.score(rows, predictions)
            counts[side] = AnswerCounts.model_validate({**_counted(rows, predictions), **scores[side].counts})
        ours, theirs = scores["candidate"], scores["reference"]
        if same := ours.constant.get("rows"):
            raise _constant_rows(len(rows), same)
        write_jsonl(out / SCORES, (_line(c, r) for c, r in zip(ours.rows, theirs.rows, strict=True)))
        return AccuracyFacts(
            rows=len(rows),
            metric=next(iter(ours.metrics)),
            confidence=self.confidence,
            metrics=self._compared(ours, theirs, task),
            counts=counts,
            about=ours.about,
            constant=theirs.constant.get("answers", ""),
        )

    def _compared(self, ours: Score, theirs: Score, task: Task) -> dict[str, MetricFacts]:
        """Compare every metric that both sides have."""
        packed = task.packed(ours.rows), task.packed(theirs.rows)
        return {
            name: self._compare(name, ours, theirs, task, packed) for name in ours.metrics if name in theirs.metrics
        }

    def _compare(self, name: str, ours: Score, theirs: Score, task: Task, packed: tuple[Any, Any]) -> MetricFacts:
        found = paired_difference(ours.rows, theirs.rows, name, task.aggregate, self.confidence, packed)
        return MetricFacts(
            candidate=ours.metrics[name],
            reference=theirs.metrics[name],
            difference=found.value,
            low=found.low,
            high=found.high,
            better="lower" if name in task.lower_is_better else "higher",
        )

    def trial(self, rows: int) -> Self:
        """Ask for no number of rows: a trial has few, and proves nothing."""
        return self.model_copy(update={"min_rows": 1})

    def judge(self, facts: AccuracyFacts) -> list[Verdict]:
        """Judge the number of rows, that each has a finite answer on both sides, and the metric."""
        rows = facts.rows
        verdicts = [
            Verdict("rows", rows >= self.min_rows, f"{rows} rows, at least {self.min_rows} asked", rows, self.min_rows),
            _complete(facts.counts, rows),
        ]
        name = self.metric or facts.metric
        found = facts.metrics.get(name)
        if found is None:
            known = ", ".join(facts.metrics) or "none"
            return [*verdicts, Verdict(name, False, f"no metric `{name}` was measured; there are: {known}")]
        if facts.constant:
            verdicts.append(_constant(facts))
        verdicts += [Verdict(name, False, says) for says in self._misplaced(name, found.better == "lower")]
        if self.at_least is not None:
            verdicts.append(_at_least(name, found.candidate, self.at_least))
        if self.at_most is not None:
            verdicts.append(_at_most(name, found.candidate, self.at_most))
        if self.max_drop is not None:
            verdicts.append(self._dropped(name, found, facts.confidence))
        return verdicts

    def successor(self) -> Self:
        """Allow the same drop once more, from what is in service; where none was given, SUCCESSOR of its metric."""
        if self.max_drop is not None:
            return self
        return self.model_copy(update={"max_drop": SUCCESSOR, "drop": "relative"})

    def headline_metric(self, facts: AccuracyFacts) -> tuple[str, bool] | None:
        """Name the metric that is judged, and whether more of it is better."""
        name = self.metric or facts.metric
        found = facts.metrics.get(name)
        return None if found is None else (name, found.better == "higher")

    def changes(self, facts: AccuracyFacts) -> list[str]:
        """Write every metric of both sides, with the interval of its paired difference."""
        return [
            f"{name}: {_shown(found.reference)} → {_shown(found.candidate)} "
            f"({facts.confidence:.0%} interval of the difference {_shown(found.low)} to {_shown(found.high)})"
            for name, found in facts.metrics.items()
        ]

    def scores(self, facts: AccuracyFacts) -> Mapping[str, float]:
        """Return every metric that is a number."""
        return {name: found.candidate for name, found in facts.metrics.items() if found.candidate is not None}

    def details(self, facts: AccuracyFacts) -> Sequence[Table | Note]:
        """Return every metric of the task as a table, with the interval of its paired difference."""
        level = f"{facts.confidence:.0%} interval"
        rows = {
            name: [
                *(Cell(side, Quantity(getattr(found, side), digits=DIGITS)) for side in SIDES),
                Cell("difference", Quantity(found.difference, "", found.low, found.high, DIGITS), level),
            ]
            for name, found in facts.metrics.items()
        }
        errors = [name for name, found in facts.metrics.items() if found.better == "lower"]
        less = f" Of {', '.join(errors)} less is better, in the unit of the labels." if errors else ""
        about = f"{facts.rows} rows; metrics are fractions.{less}"
        return [Table("metric", rows), *([Note(facts.about)] if facts.about else []), Note(about)]

    def losses(self, report: Path, task: Task | None) -> tuple[Sequence[str], int]:
        """Return the rows whose own metric fell, the most first; a correlation has none of a row: what moved most."""
        if task is None:
            return (), 0
        lines = read_jsonl(report / SCORES)
        lost = {str(line["id"]): _losses.loss(line["candidate"], line["reference"], task) for line in lines}
        worst = sorted((name for name, loss in lost.items() if loss > 0), key=lambda name: (-lost[name], name))
        return worst, len(lines)

    def headline(self, facts: AccuracyFacts) -> str:
        """Write the metric of both sides."""
        name = self.metric or facts.metric
        found = facts.metrics.get(name)
        return f"{name} {_shown(found.candidate)} of {_shown(found.reference)}" if found is not None else ""

    def cells(self, facts: AccuracyFacts, side: str) -> Sequence[Cell]:
        """Return one side's metric, the candidate's with the interval of its difference."""
        name = self.metric or facts.metric
        found = facts.metrics.get(name)
        if found is None:
            quantity = Quantity(None, digits=DIGITS)
        elif side == "candidate":
            quantity = Quantity(found.candidate, "", found.low, found.high, DIGITS)
        else:
            quantity = Quantity(found.reference, digits=DIGITS)
        return [Cell(name, quantity, interval_of="its difference")]

    def _dropped(self, name: str, found: MetricFacts, confidence: float) -> Verdict:
        ours, theirs = found.candidate, found.reference
        if ours is None or theirs is None or self.max_drop is None:
            return _undefined(name, ours, theirs)
        if self.drop == "relative" and theirs <= 0 and found.better == "higher":  # of nothing: any candidate would pass
            worth = f"{name} of the reference is {_shown(theirs)}"
            says = f"{worth}: it answers nothing right; look at the rows and the task"
            return Verdict(name, False, says, theirs - ours, 0.0)
        bound = self.max_drop * (abs(theirs) if self.drop == "relative" else 1)
        interval = f"{confidence:.0%} interval {_shown(found.low)} to {_shown(found.high)}"
        allowed = _shown(bound) + (f" ({self.max_drop:.2%} of the reference)" if self.drop == "relative" else "")
        worse, change = (theirs - ours, "drop") if found.better == "higher" else (ours - theirs, "rise")
        return Verdict(
            name,
            worse <= bound + ROUNDING,
            f"{name} {_shown(ours)}, reference {_shown(theirs)}: difference {ours - theirs:+.4f} ({interval}), "
            f"a {change} of {allowed} is allowed",
            worse,
            bound,
        )


def _constant_rows(count: int, same: str) -> RecipeError:
    return RecipeError(
        f"data.validation: all {count} rows have {same}: no metric tells a good model from one that always answers so; "
        "take rows that differ, or name the column that has the right answers (`columns:`)"
    )


def _undefined(name: str, ours: float | None, theirs: float | None) -> Verdict:
    """Fail a metric that is not defined, and say why that is."""
    sides = " and ".join(side for side, value in zip(SIDES, (ours, theirs), strict=True) if value is None)
    return Verdict(
        name,
        False,
        f"{name} is NaN: candidate {_shown(ours)}, reference {_shown(theirs)}; it is not defined where answers never "
        f"vary or are missing: look at the predictions of the {sides}",
    )


def _constant(facts: AccuracyFacts) -> Verdict:
    return Verdict(
        "constant",
        False,
        f"the reference gives {facts.constant} to all {facts.rows} rows: comparing with it shows nothing; "
        "look at the reference, the task's options and the rows, or compare with another reference",
    )


def _at_least(name: str, value: float | None, bound: float) -> Verdict:
    if value is None:
        return _undefined(name, value, 0.0)
    passed = value >= bound - ROUNDING
    return Verdict(name, passed, f"{name} {_shown(value)}, at least {_shown(bound)} asked", value, bound)


def _at_most(name: str, value: float | None, bound: float) -> Verdict:
    if value is None:
        return _undefined(name, value, 0.0)
    passed = value <= bound + ROUNDING
    return Verdict(name, passed, f"{name} {_shown(value)}, at most {_shown(bound)} asked", value, bound)


def _counted(rows: Sequence[Mapping[str, Any]], predictions: Mapping[str, Any]) -> dict[str, int]:
    """Count what makes a comparison incomplete, whatever a task counts itself."""
    answered = [predictions[row["id"]] for row in rows if row["id"] in predictions]
    return {
        "missing": len(rows) - len(answered),
        "unknown": len(predictions) - len(answered),
        "nan": sum(bool(answer.get("nan")) for answer in answered),
    }


def _complete(counts: Mapping[Side, AnswerCounts], rows: int) -> Verdict:
    """Fail unless every row has one finite prediction on both sides."""
    wrong = [
        f"{side}: {number_of} {meaning}"
        for side, count in counts.items()
        for number_of, meaning in (
            (count.missing, "rows unanswered"),
            (count.unknown, "answers of no row"),
            (count.nan, "answers of NaN"),
        )
        if number_of
    ]
    if not rows:
        wrong.append("there are no rows")
    return Verdict("answers", not wrong, "; ".join(wrong) or f"{rows} rows answered by both sides, all finite")


def _shown(value: float | None) -> str:
    return number(value, DIGITS)


def _line(candidate: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Join both sides' scores of one row."""
    sides = {"candidate": candidate, "reference": reference}
    return {
        "id": candidate["id"],
        **{side: {key: value for key, value in scores.items() if key != "id"} for side, scores in sides.items()},
    }
