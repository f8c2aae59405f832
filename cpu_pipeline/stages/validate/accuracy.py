"""Is the candidate as right as the reference? Both answered the same rows; compare their metrics, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from cpu_pipeline.core.artifact import canonical
from cpu_pipeline.core.errors import GateFailed, PipelineError, RecipeError
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.core.jsonl import SCORES, read_jsonl, write_jsonl
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.runtime import rows_needed
from cpu_pipeline.runtime.looks import LOOKS
from cpu_pipeline.stages._base import Inputs, Job, Verdict
from cpu_pipeline.stages._columns import read_columns
from cpu_pipeline.stages.validate import _losses
from cpu_pipeline.stages.validate._accuracy_facts import AccuracyFacts, LookFacts, MetricFacts, SlicedFacts
from cpu_pipeline.stages.validate._accuracy_options import SUCCESSOR, AccuracyOptions
from cpu_pipeline.stages.validate._bounds import cannot_fail
from cpu_pipeline.stages.validate._compare import Compared, compared, constant_rows
from cpu_pipeline.stages.validate._gate import SIDES, task_of
from cpu_pipeline.stages.validate._verdicts import (
    DIGITS,
    Difference,
    at_least,
    at_most,
    bound_text,
    complete,
    constant,
    rows_text,
    shown,
    undefined,
)
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks._tokens import unlabelled


class ValidateAccuracy(AccuracyOptions):
    """Show that the candidate's metric is no worse than the reference's on the same rows, but for an allowed drop."""

    facts_model: ClassVar = AccuracyFacts
    through: ClassVar = dict.fromkeys(SIDES, "predict")
    version: ClassVar = 3
    remedies: ClassVar = ("max_drop", "at_least", "at_most", "min_rows")
    unkeyed: ClassVar = frozenset(
        {*AccuracyOptions.bounds, "metric", "drop", "source", "min_rows", "on_inconclusive", "expected_flips"}
    )

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
        if name in task.lower_is_better:
            return []
        return cannot_fail(name, task.least(name), self.allowed, self.at_least)

    def _misplaced(self, name: str, lower: bool) -> list[str]:
        """Say which bound does not fit a metric of this direction."""
        if lower:
            return [] if self.at_least is None else [f"at_least: {name} is an error, less is better; use `at_most`"]
        return [] if self.at_most is None else [f"at_most: of {name} more is better; use `at_least`"]

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Tell too few rows, rows without the right answer, rows that all have one, and slices that are none."""
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

        columns = read_columns(job.data["validation"])
        for one in self.divisions:
            one.divide(rows, columns, task)

    def cautions(self, task: Task | None, model: Path | None, rows: int | None) -> Iterable[str]:
        """Tell that the rows cannot show the allowed drop, by the table of rows needed."""
        drop = self.allowed
        if task is None or not drop:
            return
        name = self.metric or next(iter(task.metrics_of(model)), "")
        if name not in task.row_means:
            return
        needed = rows_needed.rows_needed(self.expected_flips, drop, self.confidence)
        have = self.min_rows if rows is None else rows
        if needed is not None and have >= needed:
            return
        which = f"{have:,} rows" if rows is not None else f"{have:,} rows (min_rows)"
        flips = rows_needed.most_flips(have, drop, self.confidence)
        enough = f"so many are enough where at most {flips:.1%} flip" if flips else "so few are never enough"
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
        name = self.metric or usual
        return {one.name: found.sliced(one, one.metric or name, self.confidence) for one in self.divisions}

    def trial(self, rows: int) -> Self:
        """Ask for no number of rows, and let pass what they cannot tell: a trial has few, and proves nothing."""
        warn = {"on_inconclusive": "warn"} if self.on_inconclusive == "fail" else {}
        return self.model_copy(update={"min_rows": 1, **warn})

    def judge(self, facts: AccuracyFacts) -> list[Verdict]:
        """Judge the number of rows, that each has a finite answer on both sides, the metric, and the slices."""
        rows = facts.rows
        verdicts = [
            Verdict("rows", rows >= self.min_rows, f"{rows} rows, at least {self.min_rows} asked", rows, self.min_rows),
            complete(facts.counts, rows),
        ]
        name = self.metric or facts.metric
        found = facts.metrics.get(name)
        if found is None:
            known = ", ".join(facts.metrics) or "none"
            return [*verdicts, Verdict(name, False, f"no metric `{name}` was measured; there are: {known}")]
        if facts.constant:
            verdicts.append(constant(facts))
        verdicts += [Verdict(name, False, says) for says in self._misplaced(name, found.better == "lower")]
        if self.at_least is not None:
            verdicts.append(at_least(name, found.candidate, self.at_least, self.source))
        if self.at_most is not None:
            verdicts.append(at_most(name, found.candidate, self.at_most, self.source))
        verdicts += self.judge_sliced(facts.sliced)
        verdicts += self._too_good(name, found)
        if self.allowed is not None:
            verdicts.append(self._dropped(name, facts))
        return verdicts

    def _too_good(self, name: str, found: MetricFacts) -> Iterable[Verdict]:
        """Warn where even the lower bound is further above the reference than the candidate might be below it."""
        if found.reference is None or found.candidate is None:
            return
        gain = Difference.of(found.difference, found.lower, found.upper, found.better, None)
        margin = max(self.margin(found) or 0.0, SUCCESSOR)
        if gain is not None and gain.lower > margin:
            says = (
                f"suspiciously better than the reference: {name} {shown(found.candidate)}, reference "
                f"{shown(found.reference)}: {bound_text(gain, 'pass', found.better, self.confidence)}; look whether "
                "the reference gets what it was trained on (tokenizer, options of the task), and whether these rows "
                "made the candidate"
            )
            yield Verdict("better", True, says, gain.lower, margin, warning=True)

    def successor(self) -> Self:
        """Allow the same drop once more, from what is in service; where none was given, SUCCESSOR of its metric."""
        if self.allowed is not None:
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
        about = f"{facts.rows} rows; metrics are fractions.{less}{_how(facts)}"
        sliced = [self._slices_table(name, found) for name, found in facts.sliced.items()]
        return [Table("metric", rows), *sliced, *([Note(facts.about)] if facts.about else []), Note(about)]

    def _slices_table(self, name: str, found: SlicedFacts) -> Table:
        asked = next((one for one in self.divisions if one.name == name), None)
        judged = [] if asked is None else self.judged_slices(asked, found)
        return Table(
            f"{found.metric} by {name}",
            {
                f"{one.name}: {one.outcome}": [
                    Cell("rows", Quantity(one.facts.rows, digits=0)),
                    *(Cell(side, Quantity(getattr(one.facts, side), digits=DIGITS)) for side in SIDES),
                    Cell("difference", Quantity(one.facts.difference, digits=DIGITS)),
                    Cell("lower bound", Quantity(next(iter(one.facts.lower), None), digits=DIGITS)),
                    Cell("upper bound", Quantity(next(iter(one.facts.upper), None), digits=DIGITS)),
                    Cell("allowed drop", Quantity(one.drop, digits=DIGITS)),
                ]
                for one in judged
            },
        )

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
        looks: Sequence[LookFacts | None] = facts.looks or [None]
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
        bound = self.margin(found)
        if ours is None or theirs is None or bound is None:
            return undefined(name, ours, theirs)
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
        outcome = turned.outcome(bound, by_estimate=self.by_estimate and last)
        measured = bound_text(turned, outcome, found.better, confidence)
        says = f"{sides}: {measured}; a {change} of {allowed} is allowed"
        if outcome == "fail" and turned.upper >= -bound:
            says += "; the estimate itself is beyond that"
        if outcome == "inconclusive":
            says = f"inconclusive: {says}; {rows_text(turned, bound, confidence, rows)}"
        passed = outcome == "pass" or (outcome == "inconclusive" and self.on_inconclusive == "warn")
        return Verdict(name, passed, says, -turned.lower, bound, outcome, passed and outcome != "pass")


METHODS = {
    "tango": "Tango's score interval",
    "bca": "the paired bootstrap (BCa)",
    "resampled": "resamples of the whole metric (BCa)",
    "identical": "predictions that are the same byte for byte",
}
"""Method -> how a report says it."""


def _how(facts: AccuracyFacts) -> str:
    """Say how bounds were made."""
    used: dict[str, list[str]] = {}
    for name, found in facts.metrics.items():
        used.setdefault(METHODS.get(found.method, ""), []).append(name)
    used.pop("", None)
    how = "; ".join(f"{', '.join(names)} by {method}" for method, names in used.items())
    drawn = f" Rows were drawn in {facts.clusters} groups that belong together." if facts.clusters else ""
    return (f" Bounds: {how}." if how else "") + drawn


def _at_look(verdict: Verdict, number: int, rows: int, total: int | None) -> Verdict:
    """Say at which look a comparison ended."""
    says = f"{verdict.says}; look {number} of {LOOKS}, {rows:,} of {total or rows:,} rows"
    return replace(verdict, says=says)


def _most(rows: int | None) -> str:
    return f"{rows:,} rows" if rows is not None else "more rows than anyone has"


def _line(candidate: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Join both sides' scores of one row."""
    sides = {"candidate": candidate, "reference": reference}
    return {
        "id": candidate["id"],
        **{side: {key: value for key, value in scores.items() if key != "id"} for side, scores in sides.items()},
    }
