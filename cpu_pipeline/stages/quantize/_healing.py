"""Find the smallest set of operators that has to stay float so that a quantized model keeps its accuracy.

Operators are ranked once by the damage that each does alone; then the number of the worst ones that stay float is
bisected, and those that turn out not to be needed are quantized again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.core.errors import GateFailed, RecipeError
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.stages._base import Count, Facts, Figure, Job
from cpu_pipeline.stages.quantize._accuracy import Accuracy, Judge
from cpu_pipeline.stages.quantize._damage import Probe, damages
from cpu_pipeline.stages.quantize._scratch import Notes
from cpu_pipeline.stages.quantize._variants import Operator, Variants

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

SHOWN = 8
"""Operators that a report names of a list."""


class Point(Facts):
    """One quantized model that was tried on the selection rows."""

    floats: Count
    """Operators that it had in float."""
    value: Figure
    """Its metric, as a fraction."""
    drop: Figure
    """How much worse that is than the float model's, in the unit of `max_drop`."""
    int8_weights: float
    """Share of the weights of quantizable operators that stay in 8 bits, 0 to 1."""


class HealingFacts(Facts):
    """Which operators stayed float, and why."""

    metric: str
    reference: Figure
    """The float model's metric on the selection rows, as a fraction."""
    value: Figure
    """The healed model's."""
    unhealed: Figure
    """The metric with every operator quantized."""
    max_drop: float
    drop: str
    """Whether max_drop is `absolute` or `relative`."""
    rows: Count
    """Selection rows."""
    operators: Count
    """Operators that can be quantized."""
    floats: list[str]
    """Those that stayed float, the one that does most damage first."""
    damage: dict[str, Figure]
    """Operator -> damage when it alone is quantized, of the worst and of those that stayed float."""
    measure: str
    """What the damage is."""
    curve: list[Point]
    """Every model that was tried, in order of the number of operators in float; of NNCF's, the first and the last."""
    method: str = "bisection"
    """`bisection` or `nncf`."""


class Search:
    """Bisects how many of the worst operators stay float, within a number of trials."""

    def __init__(
        self,
        operators: Sequence[Operator],
        damages: Mapping[str, float],
        accuracy: Accuracy,
        measure: Callable[[Set[str]], tuple[float, float]],
        notes: Notes,
    ) -> None:
        """Take what a trial needs.

        Args:
            operators: what is quantized.
            damages: operator -> damage, the largest first.
            accuracy: the bound.
            measure: gives the metric of the model with these operators in float, and its drop.
            notes: keeps what was measured, for a run that resumes.
        """
        self.ranked = list(damages)
        self._weights = {operator.name: operator.weights for operator in operators}
        self._accuracy, self._measure, self._notes = accuracy, measure, notes
        self.points: dict[tuple[str, ...], Point] = {}

    def smallest(self) -> tuple[str, ...] | None:
        """Return the operators to leave in float, the worst first; None when no set that was tried is enough."""
        if self._holds(()):
            return ()
        last = len(self.ranked) - 1  # with all of them in float nothing is quantized
        fails, holds, size = 0, None, 1
        while holds is None and fails < last and self._left:
            size = min(size, last)
            if self._holds(self._worst(size)):
                holds = size
            else:
                fails, size = size, 2 * size
        if holds is None:
            return None
        while holds - fails > 1 and self._left:
            middle = (fails + holds) // 2
            if self._holds(self._worst(middle)):
                holds = middle
            else:
                fails = middle
        return self._pruned(self._worst(holds))

    def _pruned(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Quantize again what is not needed, beginning with what does least damage; the worst one is known to be."""
        kept = names
        for name in reversed(names):
            fewer = tuple(other for other in kept if other != name)
            if fewer and self._left and self._holds(fewer):
                kept = fewer
        return kept

    @property
    def _left(self) -> int:
        return self._accuracy.evaluations - len(self.points)

    def _worst(self, count: int) -> tuple[str, ...]:
        return tuple(self.ranked[:count])

    def _holds(self, names: tuple[str, ...]) -> bool:
        if names not in self.points:
            key = "trial " + "\n".join(names)
            if (known := self._notes.get(key)) is None:
                known = [value if math.isfinite(value) else None for value in self._measure(set(names))]
                self._notes.put(key, known)
            total = sum(self._weights.values())
            share = 1 - sum(self._weights[name] for name in names) / total if total else 0.0
            self.points[names] = Point(floats=len(names), value=known[0], drop=known[1], int8_weights=share)
        drop = self.points[names].drop
        return drop is not None and self._accuracy.kept(drop)

    @property
    def curve(self) -> list[Point]:
        """List what was tried, by the number of operators in float."""
        return sorted(self.points.values(), key=lambda point: point.floats)


def heal(stage: str, variants: Variants, source: Path, accuracy: Accuracy, job: Job) -> HealingFacts:
    """Find the operators that have to stay float.

    Args:
        stage: name of the quantizing stage, for messages.
        variants: the quantized model.
        source: directory of the float model, with what the task encodes with.
        accuracy: the bound.
        job: has the task, and the rows of `calibration` (to rank) and `selection` (to try).

    Raises:
        RecipeError: the task or rows are missing, or the task has no such metric.
        GateFailed: no set that was tried keeps the bound.
    """
    task = require(stage, source, accuracy, job)
    name, notes = accuracy.name(task, source), Notes(job.scratch)
    judge = Judge(task, source, job.data["selection"], job.progress)
    if (reference := notes.get("reference")) is None:
        reference = judge.metrics(variants.original())[name]
        notes.put("reference", reference)
    lower = name in task.lower_is_better

    def measure(names: Set[str]) -> tuple[float, float]:
        value = judge.metrics(variants.keeping(names))[name]
        return value, accuracy.drop_of(value, reference, lower)

    probe = Probe(task, source, job.data["calibration"], accuracy.sequences)
    found = damages(variants, probe, notes, job.progress)
    search = Search(variants.operators, found, accuracy, measure, notes)
    floats = search.smallest()
    if floats is None:
        raise unreachable(stage, name, reference, accuracy, search)
    shown = dict.fromkeys((*floats, *list(found)[:SHOWN]))
    return HealingFacts(
        metric=name,
        reference=reference,
        value=search.points[floats].value,
        unhealed=search.points[()].value,
        max_drop=accuracy.max_drop,
        drop=accuracy.drop,
        rows=len(judge.rows),
        operators=len(variants.operators),
        floats=list(floats),
        damage={operator: found[operator] for operator in found if operator in shown},
        measure=probe.measure,
        curve=search.curve,
    )


def require(stage: str, source: Path, accuracy: Accuracy, job: Job) -> Task:
    """Return the task.

    Raises:
        RecipeError: it or the rows are missing, or it has no such metric.
    """
    task = job.task
    if task is None or "selection" not in job.data or "calibration" not in job.data:
        raise RecipeError(f"{stage}: `accuracy` needs a task, data.calibration and data.selection in the recipe")
    if wrong := accuracy.misfits(task, source):
        raise RecipeError(f"{stage}: {'; '.join(wrong)}")
    return task


def unreachable(stage: str, metric: str, reference: float, accuracy: Accuracy, search: Search) -> GateFailed:
    """Return the error for a bound that no trial kept: what is lost and gained at each point."""
    share = " of it" if accuracy.drop == "relative" else ""
    points = "; ".join(_says(point, len(search.ranked)) for point in search.curve)
    best = min((p.drop for p in search.curve if p.drop is not None), default=math.inf)
    advice = f"allow a `max_drop` of {best:.4f}" if math.isfinite(best) else "look at the rows and the ranges"
    more = "more `evaluations`, " if len(search.points) >= accuracy.evaluations else ""
    return GateFailed(
        f"{stage}: the accuracy can't be reached: {metric} of the float model is {reference:.4f} on the selection "
        f"rows, a drop of {accuracy.max_drop:.4f}{share} is allowed, and after {len(search.points)} evaluations no "
        f"set of operators in float keeps it. Operators in float: {points}. Try {more}other ranges, or {advice}"
    )


def _says(point: Point, operators: int) -> str:
    value = "undefined" if point.value is None else f"{point.value:.4f}"
    drop = "?" if point.drop is None else f"{point.drop:.4f}"
    return f"{point.floats} of {operators} → {value} (drop {drop}), {point.int8_weights:.0%} of the weights int8"


def details(facts: HealingFacts) -> Iterator[Table | Note]:
    """Write for the report what stayed float, and what each point of the curve loses and gains."""
    names = ", ".join(facts.floats[:SHOWN]) + (", ..." if len(facts.floats) > SHOWN else "")
    stayed = (
        f"{len(facts.floats)} of {facts.operators} operators stayed float: {names}" if names else "nothing stayed float"
    )
    share = " of it" if facts.drop == "relative" else ""
    yield Note(
        f"On {facts.rows} selection rows {facts.metric} is {_figure(facts.value)}, of the float model "
        f"{_figure(facts.reference)}, with everything quantized {_figure(facts.unhealed)}; a drop of "
        f"{facts.max_drop:.4f}{share} was allowed: {stayed}."
    )
    rows: dict[str, list[Cell]] = {}
    for point in facts.curve:
        label = str(point.floats) + "'" * sum(name.rstrip("'") == str(point.floats) for name in rows)
        rows[label] = [
            Cell(facts.metric, Quantity(point.value, digits=4)),
            Cell("drop", Quantity(point.drop, digits=4)),
            Cell("weights in int8", Quantity(100 * point.int8_weights, "%", digits=1)),
        ]
    if rows:
        yield Table("operators in float", rows)
    if facts.damage:
        yield Table(
            "operator",
            {name: [Cell(facts.measure, Quantity(value, digits=6))] for name, value in facts.damage.items()},
        )


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
