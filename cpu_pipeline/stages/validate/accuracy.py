"""Is the candidate as right as the reference? Both answered the same rows; compare their metrics, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpu_pipeline import backends
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.jsonl import PREDICTIONS, SCORES, read, write
from cpu_pipeline.core.markdown import escape, table
from cpu_pipeline.runtime.intervals import paired_difference
from cpu_pipeline.stages._base import Facts, Inputs, Job, Stage, Verdict
from cpu_pipeline.tasks._base import Score

SUCCESSOR = 0.01
"""Share of the metric by which an artifact may fall behind the one in service, where the gate allows no drop itself."""
ROUNDING = 1e-9
"""What sums of fractions may be off by: a drop of exactly max_drop passes."""


class ValidateAccuracy(Stage):
    """Compare the candidate's metric with the reference's on the same rows."""

    metric: str | None = None
    """Metric that is judged; by default the task's usual one. All of the task's are reported."""
    max_drop: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """How far below the reference the candidate may be, as a fraction (0.01 is one point or one percent; see drop)."""
    drop: Literal["absolute", "relative"] = "absolute"
    """Whether max_drop is a difference of metrics or a share of the reference's metric."""
    at_least: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)
    """Least value of the candidate's metric, as a fraction."""
    min_rows: int = Field(default=100, ge=1)
    """Fewest rows on which the comparison may rest."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the bootstrap interval of the paired difference, which is reported beside each metric."""

    takes: ClassVar = dict.fromkeys(("candidate", "reference"), frozenset(backends.names()))
    through: ClassVar = {"candidate": "predict", "reference": "predict"}
    reads = frozenset({"task", "data.validation"})
    packages = ("numpy", "scipy")
    unkeyed = frozenset({"metric", "max_drop", "drop", "at_least", "min_rows"})

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if self.max_drop is None and self.at_least is None:
            raise ValueError("a gate must be able to fail: set `max_drop`, `at_least` or both")
        return self

    def gives(self) -> str:
        """Name the format of the output."""
        return "report"

    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        """Score both sides; keep each row's scores, and every metric with the interval of its difference.

        Raises:
            RecipeError: the task has no such metric, or a row has no label.
        """
        if job.task is None:
            raise StageFailed("accuracy needs the recipe's task")
        task = job.task
        if self.metric is not None and self.metric not in task.metrics:
            raise RecipeError(f"the task has no metric `{self.metric}`; it has: {', '.join(task.metrics)}")
        rows = read(job.data["validation"])
        scores = {}
        for side in ("candidate", "reference"):
            said = read(inputs[side].path / PREDICTIONS)
            scores[side] = task.score(rows, {prediction["id"]: prediction for prediction in said})
        ours, theirs = scores["candidate"], scores["reference"]
        write(out / SCORES, (_line(c, r) for c, r in zip(ours.rows, theirs.rows, strict=True)))
        return {
            "rows": len(rows),
            "metric": task.metrics[0],
            "confidence": self.confidence,
            "metrics": {name: self._compare(name, ours, theirs, job) for name in task.metrics if name in ours.metrics},
            "counts": {side: dict(score.counts) for side, score in scores.items()},
        }

    def _compare(self, name: str, ours: Score, theirs: Score, job: Job) -> dict[str, float | None]:
        if job.task is None:
            raise StageFailed("accuracy needs the recipe's task")
        found = paired_difference(ours.rows, theirs.rows, name, job.task.aggregate, self.confidence)
        said = {
            "candidate": ours.metrics[name],
            "reference": theirs.metrics[name],
            "difference": found.value,
            "low": found.low,
            "high": found.high,
        }
        return {key: value if math.isfinite(value) else None for key, value in said.items()}

    def judge(self, facts: Facts) -> list[Verdict]:
        """Judge the number of rows, that each has a finite answer on both sides, and the metric."""
        rows = facts["rows"]
        verdicts = [
            Verdict("rows", rows >= self.min_rows, f"{rows} rows, at least {self.min_rows} asked", rows, self.min_rows),
            _complete(facts["counts"], rows),
        ]
        name = self.metric or facts["metric"]
        found = facts["metrics"].get(name)
        if found is None:
            there = ", ".join(facts["metrics"]) or "none"
            return [*verdicts, Verdict(name, False, f"no metric `{name}` was measured; there are: {there}")]
        ours, theirs = found["candidate"], found["reference"]
        if self.at_least is not None:
            verdicts.append(_at_least(name, ours, self.at_least))
        if self.max_drop is not None:
            verdicts.append(self._dropped(name, ours, theirs, found, facts["confidence"]))
        return verdicts

    def successor(self) -> Self:
        """Allow the same drop once more, from what is in service; where none was given, SUCCESSOR of its metric."""
        if self.max_drop is not None:
            return self
        return self.model_copy(update={"max_drop": SUCCESSOR, "drop": "relative"})

    def changes(self, facts: Facts) -> list[str]:
        """Say every metric of both sides, with the interval of its paired difference."""
        return [
            f"{name}: {_number(said['reference'])} → {_number(said['candidate'])} "
            f"({facts['confidence']:.0%} interval of the difference {_number(said['low'])} to {_number(said['high'])})"
            for name, said in facts["metrics"].items()
        ]

    def scores(self, facts: Facts) -> Mapping[str, float]:
        """Give every metric that is a number."""
        found = {name: said["candidate"] for name, said in facts["metrics"].items()}
        return {name: value for name, value in found.items() if value is not None}

    def tells(self, facts: Facts) -> list[str]:
        """Write every metric of the task as a table, with the interval of its paired difference."""
        head = ("metric", "candidate", "reference", "difference", f"{facts['confidence']:.0%} interval")
        rows = [
            (
                escape(name),
                *(_number(said[key]) for key in ("candidate", "reference", "difference")),
                f"{_number(said['low'])} to {_number(said['high'])}",
            )
            for name, said in facts["metrics"].items()
        ]
        return [*table(head, rows), f"{facts['rows']} rows; metrics are fractions."]

    def cells(self, facts: Facts, side: str) -> Mapping[str, str]:
        """Give one side's metric, the candidate's with the interval of its difference."""
        name = self.metric or facts["metric"]
        found = facts["metrics"].get(name, {})
        told = _number(found.get(side))
        if side == "candidate":
            told += f" ({_number(found.get('low'))} to {_number(found.get('high'))})"
        return {escape(f"{name} (interval of its difference)"): told}

    def _dropped(
        self, name: str, ours: float | None, theirs: float | None, found: Mapping[str, Any], confidence: float
    ) -> Verdict:
        if ours is None or theirs is None or self.max_drop is None:
            return Verdict(name, False, f"{name} is NaN: candidate {_number(ours)}, reference {_number(theirs)}")
        if self.drop == "relative" and theirs <= 0:  # a share of nothing: whatever came out would pass
            says = f"{name} of the reference is {theirs:.4f}: it answers nothing right; look at the rows and the task"
            return Verdict(name, False, says, theirs - ours, 0.0)
        bound = self.max_drop * (abs(theirs) if self.drop == "relative" else 1)
        interval = f"{confidence:.0%} interval {_number(found['low'])} to {_number(found['high'])}"
        allowed = f"{bound:.4f}" + (f" ({self.max_drop:.2%} of the reference)" if self.drop == "relative" else "")
        return Verdict(
            name,
            theirs - ours <= bound + ROUNDING,
            f"{name} {ours:.4f}, reference {theirs:.4f}: difference {ours - theirs:+.4f} ({interval}), "
            f"a drop of {allowed} is allowed",
            theirs - ours,
            bound,
        )


def _at_least(name: str, value: float | None, bound: float) -> Verdict:
    passed = value is not None and value >= bound - ROUNDING
    return Verdict(name, passed, f"{name} {_number(value)}, at least {bound:.4f} asked", value, bound)


def _complete(counts: Mapping[str, Mapping[str, int]], rows: int) -> Verdict:
    """Fail unless every row has one finite prediction on both sides."""
    wrong = [
        f"{side}: {said[what]} {meaning}"
        for side, said in counts.items()
        for what, meaning in (
            ("missing", "rows unanswered"),
            ("unknown", "answers of no row"),
            ("nan", "answers of NaN"),
        )
        if said[what]
    ]
    if not rows:
        wrong.append("there are no rows")
    return Verdict("answers", not wrong, "; ".join(wrong) or f"{rows} rows answered by both sides, all finite")


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.4f}"


def _line(candidate: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    sides = {"candidate": candidate, "reference": reference}
    return {
        "id": candidate["id"],
        **{side: {key: value for key, value in said.items() if key != "id"} for side, said in sides.items()},
    }
