"""The options of the accuracy gate, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cpu_pipeline.runtime.looks import LOOKS
from cpu_pipeline.stages._base import FindSource, Outcome, Verdict
from cpu_pipeline.stages.validate._accuracy_facts import MetricFacts, SlicedFacts
from cpu_pipeline.stages.validate._gate import Gate
from cpu_pipeline.stages.validate._slices import Slices
from cpu_pipeline.stages.validate._verdicts import Difference, JudgedSlice, judge_slices, slices_verdict
from cpu_pipeline.tasks._base import Task

SUCCESSOR = 0.01
"""Share of the metric by which an artifact may fall behind the one in service, where the gate allows no drop itself."""
PRESETS: Mapping[str, tuple[float, Literal["absolute", "relative"]]] = {
    "mlperf-99": (0.01, "relative"),
    "mlperf-99.9": (0.001, "relative"),
    "point-1": (0.01, "absolute"),
}
"""Name of a bound -> max_drop and drop. MLPerf Inference asks for 99 % or 99.9 % of the float model's metric."""


class AccuracyOptions(Gate):
    """What is asked of a candidate."""

    reads: ClassVar = frozenset({"task", "data.validation"})
    packages: ClassVar = ("numpy", "scipy")
    bounds: ClassVar = frozenset({"max_drop", "bound", "at_least", "at_most"})

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
    """Where the value of at_least or at_most is published: an article, a model card, an address."""
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
    slices: Slices | tuple[Slices, ...] = ()
    """Slices of the rows, each judged by itself: `{column: language}`, `{by: length}` or `{by: answer}`, with
    `max_drop`, `min_rows` and, for single slices, `each`; one or a list."""
    expected_flips: float = Field(default=0.02, ge=0, le=1)
    """Share of rows whose answer is expected to change; `check` and `plan` warn where the rows cannot show max_drop
    then. 0.02 is usual for int8, 0.001 for float32."""

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
        if any((one.column is None) == (one.by is None) for one in self.divisions):
            raise ValueError("slices: name either a `column`, or `by: length` or `by: answer`")
        if self.allowed is None and any(one.max_drop is None for one in self.divisions):
            raise ValueError("slices: each needs a bound; set `max_drop` here or there")
        if len({one.name for one in self.divisions}) < len(self.divisions):
            raise ValueError("slices: one property is there twice")
        return self

    @property
    def allowed(self) -> float | None:
        """Return the allowed drop."""
        return self.max_drop if self.bound is None else PRESETS[self.bound][0]

    @property
    def divisions(self) -> tuple[Slices, ...]:
        """List the properties by which the rows are sliced."""
        return (self.slices,) if isinstance(self.slices, Slices) else self.slices

    @property
    def relative(self) -> bool:
        """Say whether it is a share of the reference's metric."""
        return (self.drop if self.bound is None else PRESETS[self.bound][1]) == "relative"

    def looks(self) -> int:
        """Say in how many parts the rows are predicted."""
        return LOOKS if self.on_inconclusive == "more" else 1

    def identity(self, source: FindSource) -> object:
        """Name the number of looks, of each of which facts hold the bounds, and the metric of slices."""
        looks = {"looks": self.looks()} if self.looks() > 1 else {}
        return {**looks, **({"metric": self.metric} if self.divisions else {})} or None

    def cluster_column(self, task: Task | None) -> str | None:
        """Name the column by which rows belong together; None where each stands alone."""
        if self.cluster is False:
            return None
        return self.cluster or (task.cluster if task is not None else None)

    def columns_read(self, task: Task | None) -> Set[str]:
        """Name the columns of clusters and slices that are none of the task's own."""
        own = set(task.columns) if task is not None else set[str]()
        named = {self.cluster_column(task), *(one.column for one in self.divisions)}
        return frozenset(name for name in named if name is not None and name not in {*own, "id"})

    def judge_sliced(self, sliced: Mapping[str, SlicedFacts]) -> Iterable[Verdict]:
        """Judge the slices by each property."""
        for one in self.divisions:
            if (found := sliced.get(one.name)) is None or not found.slices:
                continue
            judged = self.judged_slices(one, found)
            lets_pass = self.on_inconclusive == "warn"
            yield slices_verdict(found, judged, one.name, self.confidence, lets_pass=lets_pass)

    def judged_slices(self, one: Slices, found: SlicedFacts) -> list[JudgedSlice]:
        """Judge the slices by one property; the worst comes first."""
        return judge_slices(found, one, self.allowed, relative=self.relative, by_estimate=self.by_estimate)

    def outcome_of(self, found: MetricFacts) -> Outcome:
        """Say what the bounds of a metric show, an estimate aside."""
        margin = self.margin(found)
        turned = Difference.of(found.difference, found.lower, found.upper, found.better, found.deviation)
        if margin is None or turned is None:
            return "inconclusive"
        return turned.outcome(margin, by_estimate=False)

    @property
    def by_estimate(self) -> bool:
        return self.on_inconclusive != "warn"

    def margin(self, found: MetricFacts) -> float | None:
        """Return the allowed drop as a difference."""
        if self.allowed is None or found.reference is None:
            return None
        return self.allowed * (abs(found.reference) if self.relative else 1)
