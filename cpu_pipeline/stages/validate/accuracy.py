"""Is the candidate as right as the reference? Both answered the same rows; compare their metrics, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cpu_pipeline.core.artifact import canonical
from cpu_pipeline.core.errors import GateFailed, PipelineError, RecipeError
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.core.jsonl import SCORES, read_jsonl, write_jsonl
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.runtime import rows_needed
from cpu_pipeline.runtime.looks import LOOKS
from cpu_pipeline.stages._base import FindSource, Inputs, Job, Outcome, Verdict
from cpu_pipeline.stages.validate import _losses
from cpu_pipeline.stages.validate._accuracy_facts import AccuracyFacts, AnswerCounts, MetricFacts, SlicedFacts
from cpu_pipeline.stages.validate._compare import Compared, compared, constant_rows
from cpu_pipeline.stages.validate._gate import SIDES, Gate, Side, task_of
from cpu_pipeline.stages.validate._slices import Slices
from cpu_pipeline.stages.validate._verdicts import (
    DIGITS,
    ROUNDING,
    Difference,
    bound_text,
    judge_slices,
    rows_text,
    shown,
    slices_verdict,
)
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks._tokens import unlabelled

SUCCESSOR = 0.01
"""Share of the metric by which an artifact may fall behind the one in service, where the gate allows no drop itself."""
PRESETS: Mapping[str, tuple[float, Literal["absolute", "relative"]]] = {
    "mlperf-99": (0.01, "relative"),
    "mlperf-99.9": (0.001, "relative"),
    "point-1": (0.01, "absolute"),
}
"""Name of a bound -> max_drop and drop. MLPerf Inference asks for 99 % or 99.9 % of the float model's metric."""


class ValidateAccuracy(Gate):
    """Show that the candidate's metric is no worse than the reference's on the same rows, but for an allowed drop."""

    metric: str | None = None
    """Metric that is judged; by default the task's usual one. All of the task's are reported."""
    max_drop: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How much worse than the reference the candidate may be, as a fraction (0.01 is one point or one percent; see
    drop); of an error such as mse: how much larger. It passes when the one-sided bound of the difference shows that."""
    drop: Literal["absolute", "relative"] = "absolute"
    """Whether max_drop is a difference of metrics or a share of the reference's metric."""
    bound: Literal["mlperf-99", "mlperf-99.9", "point-1"] | None = None
    """A known allowed drop in place of max_drop: 1 % or 0.1 % of the reference's metric, as MLPerf Inference asks, or
    one point."""
    at_least: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)
    """Least value of the candidate's metric, as a fraction, such as a published one; see source."""
    at_most: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest value of the candidate's metric, where that is an error such as mse."""
    source: str | None = Field(default=None, min_length=1)
    """Where the value of at_least or at_most is published: a paper, a model card, an address."""
    min_rows: int = Field(default=100, ge=1)
    """Fewest rows on which the comparison may rest."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """Level of the one-sided bounds that judge, and of the two-sided intervals that are reported."""
    on_inconclusive: Literal["fail", "warn", "more"] = "fail"
    """What becomes of a candidate when the rows are too few to tell: it fails (fail), or passes with a warning (warn).
    With `more` the rows are predicted a quarter at a time, until they tell; it fails where all of them do not."""
    cluster: Annotated[str, Field(min_length=1)] | Literal[False] | None = None
    """Column by which rows belong together, such as the passage of several questions; they are drawn as one. By default
    the task's (the context of question answering); false for rows that stand alone."""
    slices: tuple[Slices, ...] = ()
    """Slices of the rows, each judged by itself: `{column: language}`, `{by: length}` or `{by: answer}`, with
    `max_drop`, `min_rows` and, for single slices, `each`; one or a list."""
    expected_flips: float = Field(default=0.02, ge=0, le=1)
    """Share of rows whose answer is expected to change; `check` and `plan` warn where the rows cannot show max_drop
    then. 0.02 is usual for int8, 0.001 for float32."""

    facts_model: ClassVar = AccuracyFacts
    through: ClassVar = dict.fromkeys(SIDES, "predict")
    reads: ClassVar = frozenset({"task", "data.validation"})
    packages: ClassVar = ("numpy", "scipy")
    version: ClassVar = 3
    bounds: ClassVar = frozenset({"max_drop", "bound", "at_least", "at_most"})
    remedies: ClassVar = ("max_drop", "at_least", "at_most", "min_rows")
    unkeyed: ClassVar = frozenset(
        {*bounds, "metric", "drop", "source", "min_rows", "on_inconclusive", "expected_flips"}
    )

    @field_validator("slices", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.at_most is not None and self.metric is None:
            raise ValueError("at_most: name the `metric` that it bounds, an error such as mse")
        if self.bound is not None and self.max_drop is not None:
            raise ValueError("bound: it says max_drop itself; leave one of the two out")
        if self.source is not None and self.at_least is None and self.at_most is None:
            raise ValueError("source: it is that of `at_least` or `at_most`; set one")
        if self.on_inconclusive == "more" and self.allowed is None:
            raise ValueError("on_inconclusive: `more` looks until max_drop is shown; set `max_drop` or `bound`")
        if self.on_inconclusive == "more" and (self.at_least is not None or self.at_most is not None):
            raise ValueError("on_inconclusive: `more` may stop before the last row; at_least and at_most need all rows")
        if self.slices and self.allowed is None and any(one.max_drop is None for one in self.slices):
            raise ValueError("slices: each needs a bound; set `max_drop` here or there")
        if len({one.name for one in self.slices}) < len(self.slices):
            raise ValueError("slices: one property is there twice")
        return self

    @property
    def allowed(self) -> float | None:
        """Return the allowed drop."""
        return self.max_drop if self.bound is None else PRESETS[self.bound][0]

    @property
    def relative(self) -> bool:
        """Say whether it is a share of the reference's metric."""
        return (self.drop if self.bound is None else PRESETS[self.bound][1]) == "relative"

    def looks(self) -> int:
        """Say in how many parts the rows are predicted."""
        return LOOKS if self.on_inconclusive == "more" else 1

    def identity(self, source: FindSource) -> object:
        """Name the number of looks: facts hold the bounds of each."""
        return {"looks": self.looks()} if self.looks() > 1 else None

    def cluster_column(self, task: Task | None) -> str | None:
        """Name the column by which rows belong together; None where each stands alone."""
        if self.cluster is False:
            return None
        return self.cluster or (task.cluster if task is not None else None)

    def columns_read(self, task: Task | None) -> Set[str]:
        """Name the columns of clusters and slices that are none of the task's own."""
        own = set(task.columns) if task is not None else set[str]()
        named = {self.cluster_column(task), *(one.column for one in self.slices)}
        return frozenset(name for name in named if name is not None and name not in {*own, "id"})

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say whether the task has the metric with this model, and whether the bounds fit the metric's direction."""
        if self.metric is None:
            return []
        known = task.metrics_of(model)
        if not (task.has_metric(self.metric) if model is None else self.metric in known):
            near = did_you_mean(self.metric, known)
            return [f"metric: the task has no metric `{self.metric}`{near}; it has: {', '.join(known)}"]
        return self._misplaced(self.metric, self.metric in task.lower_is_better)

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
            yield constant_rows(len(rows), f"{task.gold} {rows[0][task.gold]}")

    def cautions(self, job: Job, rows: int | None) -> Iterable[str]:
        """Tell that the rows cannot show the allowed drop, by the table of rows needed."""
        task, drop = job.task, self.allowed
        if task is None or not drop:
            return
        name = self.metric or next(iter(task.metrics_of()), "")
        if name not in task.row_means:
            return
        needed = rows_needed.rows_needed(self.expected_flips, drop, self.confidence)
        have = self.min_rows if rows is None else rows
        if needed is not None and have >= needed:
            return
        which = f"{have:,} rows" if rows is not None else f"{have:,} rows (min_rows)"
        flips = rows_needed.most_flips(have, drop, self.confidence)
        enough = f"they do where at most {flips:.1%} flip" if flips else "they never do"
        yield (
            f"{which} cannot show that {name} falls by no more than {drop:g}: where {self.expected_flips:.1%} of the "
            f"answers flip, {_most(needed)} are needed for a model that is no worse to pass in 4 of 5 builds; "
            f"{enough}; take more rows, or set a larger max_drop, or expected_flips (docs/gates.md)"
        )

    def run(self, inputs: Inputs, out: Path, job: Job) -> AccuracyFacts:
        """Score both sides; keep each row's scores, and every metric with the bounds of its difference.

        Raises:
            RecipeError: the task has no such metric, or a row has no label.
        """
        task = task_of(job, "accuracy")
        if wrong := self.misfits(task):
            raise RecipeError("; ".join(wrong))
        found = compared(task, inputs, job.data["validation"], self.cluster_column(task), self.looks())
        ours, theirs = found.scores["candidate"], found.scores["reference"]
        if same := ours.constant.get("rows"):
            raise constant_rows(len(found.rows), same)
        write_jsonl(out / SCORES, (_line(c, r) for c, r in zip(ours.rows, theirs.rows, strict=True)))
        usual = next(iter(ours.metrics))
        return AccuracyFacts(
            rows=len(found.rows),
            metric=usual,
            confidence=self.confidence,
            metrics={name: found.metric(name, self.confidence, self.confidence) for name in found.names},
            counts=dict(found.counts),
            about=ours.about,
            constant=theirs.constant.get("answers", ""),
            identical=found.identical,
            clusters=None if found.clusters is None else len(set(found.clusters)),
            total=found.total if found.planned > 1 else None,
            looks=[found.look(number, found.names, self.confidence) for number in range(1, len(found.ends) + 1)],
            sliced=self.sliced(found, usual),
        )

    def sliced(self, found: Compared, usual: str) -> dict[str, Any]:
        """Compare the slices of each property."""
        return {one.name: found.sliced(one, one.metric or self.metric or usual, self.confidence) for one in self.slices}

    def trial(self, rows: int) -> Self:
        """Ask for no number of rows, and let pass what they cannot tell: a trial has few, and proves nothing."""
        warn = {"on_inconclusive": "warn"} if self.on_inconclusive == "fail" else {}
        return self.model_copy(update={"min_rows": 1, **warn})

    def judge(self, facts: AccuracyFacts) -> list[Verdict]:
        """Judge the number of rows, that each has a finite answer on both sides, the metric, and the slices."""
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
            verdicts.append(_at_least(name, found.candidate, self.at_least, self.source))
        if self.at_most is not None:
            verdicts.append(_at_most(name, found.candidate, self.at_most, self.source))
        verdicts += self.judge_sliced(facts.sliced)
        verdicts += self._too_good(name, found)
        if self.allowed is not None:
            verdicts.append(self._dropped(name, facts))
        return verdicts

    @property
    def _by_estimate(self) -> bool:
        return self.on_inconclusive != "warn"

    def judge_sliced(self, sliced: Mapping[str, SlicedFacts]) -> Iterable[Verdict]:
        """Judge the slices by each property."""
        for one in self.slices:
            if (found := sliced.get(one.name)) is None or not found.slices:
                continue
            judged = judge_slices(found, one, self.allowed, relative=self.relative, by_estimate=self._by_estimate)
            lets_pass = self.on_inconclusive == "warn"
            yield slices_verdict(found, judged, one.name, self.confidence, lets_pass=lets_pass)

    def outcome_of(self, found: MetricFacts) -> Outcome:
        """Say what the bounds of a metric show, an estimate aside."""
        margin = self._margin(found)
        turned = Difference.of(found.difference, found.lower, found.upper, found.better, found.deviation)
        if margin is None or turned is None:
            return "inconclusive"
        return turned.outcome(margin, by_estimate=False)

    def _too_good(self, name: str, found: MetricFacts) -> Iterable[Verdict]:
        """Warn where even the lower bound is further above the reference than the candidate might be below it."""
        if found.reference is None or found.candidate is None:
            return
        gain = Difference.of(found.difference, found.lower, found.upper, found.better, None)
        margin = max(self._margin(found) or 0.0, SUCCESSOR)
        if gain is not None and gain.lower > margin:
            says = (
                f"suspiciously better than the reference: {name} {shown(found.candidate)}, reference "
                f"{shown(found.reference)}: {bound_text(gain, 'pass', found.better, self.confidence)}; look whether "
                "the reference gets what it was trained on (tokenizer, options of the task), and whether these rows "
                "made the candidate"
            )
            yield Verdict("better", True, says, gain.lower, margin, warning=True)

    def _margin(self, found: MetricFacts) -> float | None:
        """Return the allowed drop as a difference."""
        if self.allowed is None or found.reference is None:
            return None
        return self.allowed * (abs(found.reference) if self.relative else 1)

    def successor(self) -> Self:
        """Allow the same drop once more, from what is in service; where none was given, SUCCESSOR of its metric."""
        if self.allowed is not None:
            return self
        return self.model_copy(update={"max_drop": SUCCESSOR, "drop": "relative"})

    def changes(self, facts: AccuracyFacts) -> list[str]:
        """Write every metric of both sides, with the interval of its paired difference."""
        return [
            f"{name}: {shown(found.reference)} → {shown(found.candidate)} "
            f"({facts.confidence:.0%} interval of the difference {shown(found.low)} to {shown(found.high)})"
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
        return f"{name} {shown(found.candidate)} of {shown(found.reference)}" if found is not None else ""

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

    def _dropped(self, name: str, facts: AccuracyFacts) -> Verdict:
        """Judge the allowed drop: at the first look that decides, where there were several."""
        looks = facts.looks or [None]
        for number, look in enumerate(looks, 1):
            found = facts.metrics[name] if look is None else look.metrics[name]
            rows = facts.rows if look is None else look.rows
            last = number == len(looks)
            verdict = self._judged(name, found, rows, facts, last=last)
            if last or verdict.outcome != "inconclusive":
                return verdict if look is None else _at_look(verdict, number, rows, facts.total)
        raise AssertionError("there is a last look")

    def _judged(self, name: str, found: MetricFacts, rows: int, facts: AccuracyFacts, *, last: bool) -> Verdict:
        ours, theirs, confidence = found.candidate, found.reference, facts.confidence
        bound = self._margin(found)
        if ours is None or theirs is None or bound is None:
            return _undefined(name, ours, theirs)
        if self.relative and theirs <= 0 and found.better == "higher":  # of nothing: any candidate would pass
            worth = f"{name} of the reference is {shown(theirs)}"
            says = f"{worth}: it answers nothing right; look at the rows and the task"
            return Verdict(name, False, says, theirs - ours, 0.0)
        allowed = shown(bound) + (f" ({self.allowed:.2%} of the reference)" if self.relative else "")
        change = "drop" if found.better == "higher" else "rise"
        sides = f"{name} {shown(ours)}, reference {shown(theirs)}"
        turned = Difference.of(found.difference, found.lower, found.upper, found.better, found.deviation)
        if turned is None:  # one row, or a metric that most resamples leave undefined
            says = f"inconclusive: {sides}: {rows} rows tell no bound of the difference; take more"
            return Verdict(name, False, says, None, bound, "inconclusive")
        outcome = turned.outcome(bound, by_estimate=self._by_estimate and last)
        measured = bound_text(turned, outcome, found.better, confidence)
        says = f"{sides}: {measured}; a {change} of {allowed} is allowed"
        if outcome == "fail" and turned.upper >= -bound:
            says += "; the estimate itself is beyond that"
        if outcome == "inconclusive":
            says = f"inconclusive: {says}; {rows_text(turned, bound, confidence, rows)}"
        passed = outcome == "pass" or (outcome == "inconclusive" and self.on_inconclusive == "warn")
        return Verdict(name, passed, says, -turned.lower, bound, outcome, passed and outcome != "pass")


def _at_look(verdict: Verdict, number: int, rows: int, total: int | None) -> Verdict:
    """Say at which look a comparison ended."""
    says = f"{verdict.says}; look {number} of {LOOKS}, {rows:,} of {total or rows:,} rows"
    return replace(verdict, says=says)


def _most(rows: int | None) -> str:
    return f"{rows:,} rows" if rows is not None else "more rows than anyone has"


def _undefined(name: str, ours: float | None, theirs: float | None) -> Verdict:
    """Fail a metric that is not defined, and say why that is."""
    sides = " and ".join(side for side, value in zip(SIDES, (ours, theirs), strict=True) if value is None)
    return Verdict(
        name,
        False,
        f"{name} is NaN: candidate {shown(ours)}, reference {shown(theirs)}; it is not defined where answers never "
        f"vary or are missing: look at the predictions of the {sides}",
    )


def _constant(facts: AccuracyFacts) -> Verdict:
    return Verdict(
        "constant",
        False,
        f"the reference gives {facts.constant} to all {facts.rows} rows: comparing with it shows nothing; "
        "look at the reference, the task's options and the rows, or compare with another reference",
    )


def _published(source: str | None) -> str:
    return f" (published: {source})" if source else ""


def _at_least(name: str, value: float | None, bound: float, source: str | None) -> Verdict:
    if value is None:
        return _undefined(name, value, 0.0)
    passed = value >= bound - ROUNDING
    return Verdict(
        name, passed, f"{name} {shown(value)}, at least {shown(bound)} asked{_published(source)}", value, bound
    )


def _at_most(name: str, value: float | None, bound: float, source: str | None) -> Verdict:
    if value is None:
        return _undefined(name, value, 0.0)
    passed = value <= bound + ROUNDING
    return Verdict(
        name, passed, f"{name} {shown(value)}, at most {shown(bound)} asked{_published(source)}", value, bound
    )


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


def _line(candidate: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Join both sides' scores of one row."""
    sides = {"candidate": candidate, "reference": reference}
    return {
        "id": candidate["id"],
        **{side: {key: value for key, value in scores.items() if key != "id"} for side, scores in sides.items()},
    }
