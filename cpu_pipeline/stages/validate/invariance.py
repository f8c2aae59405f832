"""Does the answer to a row depend on the rows beside it, the size of the batch, or the padding?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.core.jsonl import write_jsonl
from cpu_pipeline.stages._base import Count, Facts, Figure, Host, Inputs, Job, Verdict
from cpu_pipeline.stages.validate import _beside
from cpu_pipeline.stages.validate._gate import Gate, only_measured, spread, task_of
from cpu_pipeline.tasks._base import Task

ROWS_FILE = "invariance.jsonl"
"""Each row: its largest difference, and its answers alone and beside others where these differ."""
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MovedRow(Facts):
    """The row with the largest difference of an output, or one whose answer changed."""

    row: str
    """Its id."""
    condition: str
    """What differed from being answered alone: `32, mixed lengths`."""
    difference: Figure
    """Largest difference of an output value from the row's own answer alone."""


class ConditionFacts(Facts):
    """What one way of asking again changed."""

    differences: dict[str, Figure]
    """Output -> largest difference of a value of any row, in the output's own unit."""
    changed: Count
    """Rows with another answer than alone."""


class InvarianceFacts(Facts):
    """How far answers depend on what a row is asked together with."""

    rows: Count
    sequences: Count
    """Sequences that the rows were split into."""
    on: str
    """`rows`, or `random tokens` where the recipe has no validation rows."""
    worst: dict[str, MovedRow]
    """Output -> the row with its largest difference."""
    conditions: dict[str, ConditionFacts]
    """What was changed -> what that did."""
    changed: Count
    """Rows with another answer under any condition."""
    choices: Count
    """Different answers that the rows have alone; 0 where the answer is a number or a vector."""
    first_changed: MovedRow | None = None
    """Of the rows whose answer changed, the one whose outputs moved most."""
    nonfinite: Count
    """Output values that are NaN or infinite, alone or beside others."""
    values: Count
    """Output values that were compared."""


class ValidateInvariance(Gate):
    """Ask each row alone, twice, padded, and in batches of short and long neighbours, and compare its answers."""

    samples: int = Field(default=64, ge=2)
    """How many validation rows to run, evenly spread; random tokens where the recipe has no such rows."""
    batches: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = Field(default=(8, 32), min_length=1)
    """Sizes of the batches that each row is run in; rows are repeated where there are fewer."""
    max_difference: Bound | dict[str, Bound] | None = None
    """Largest difference of any output value from the row's answer alone, in the outputs' own unit (logits, embedding
    values): one number for all outputs, or one for each output by name."""
    max_changed: float | None = Field(default=None, ge=0, lt=1)
    """Largest share of rows that may have another answer than alone, as a fraction; 0 allows none."""

    facts_model: ClassVar = InvarianceFacts
    takes: ClassVar = {"candidate": frozenset(backends.names())}
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy",)
    bounds: ClassVar = frozenset({"max_difference", "max_changed"})
    may_only_measure: ClassVar = True
    unkeyed: ClassVar = bounds
    remedies: ClassVar = ("max_difference", "max_changed")

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say which output that is bounded by name the task does not have."""
        if not isinstance(self.max_difference, dict):
            return []
        if not self.max_difference:
            return ["max_difference: it names no output, so that nothing can fail"]
        known = ", ".join(task.outputs)
        return [
            f"max_difference: the task has no output `{name}`; it has: {known}"
            for name in self.max_difference
            if name not in task.outputs
        ]

    def run(self, inputs: Inputs, out: Path, job: Job) -> InvarianceFacts:
        """Ask the rows alone and under each condition; keep what each row's answers came to.

        Raises:
            StageFailed: the model can't be loaded or run, or there are no rows.
        """
        task, model = task_of(job, "invariance"), inputs["candidate"]
        kinds = task.input_kinds(model.path)
        rows = task.read_rows(job.data["validation"]) if "validation" in job.data else []
        if rows:
            chosen = spread(rows, self.samples)
            features = task.encode(chosen, model.path)
        else:
            drawn = [feature for batch in task.examples(model.path) for feature in batch]
            features, chosen = _beside.as_rows(drawn), []
        if not features:
            raise StageFailed("there is nothing to ask: the validation rows give no sequence")
        asked = _beside.Asked(job.load(model), task, model.path, kinds, features, chosen)
        alone = asked.alone()
        conditions = {}
        rows_found = [_beside.RowFound(asked.name(row), alone.answers.get(row)) for row in asked.rows]
        plans = _beside.conditions(features, self.batches, kinds)
        for number, (name, groups) in enumerate(plans.items()):
            job.progress("conditions", number, len(plans))
            seen = asked.under(groups)
            conditions[name] = _beside.compare(name, alone, seen, features, rows_found)
        write_jsonl(out / ROWS_FILE, (found.line() for found in rows_found))
        return _facts(rows_found, conditions, alone, len(features), "rows" if rows else "random tokens")

    def trial(self, rows: int) -> Self:
        """Ask no more rows than a trial has."""
        return self.model_copy(update={"samples": max(2, min(self.samples, rows))})

    def judge(self, facts: InvarianceFacts) -> list[Verdict]:
        """Judge each bound, and name the row that is furthest from it; NaN and infinities fail whatever the bounds."""
        finite = not facts.nonfinite and facts.values > 0
        says = f"{facts.nonfinite} of {facts.values} output values are NaN or infinite"
        verdicts = [Verdict("finite", finite, says, facts.nonfinite, 0), *only_measured(self)]
        limits = self.max_difference
        for name, worst in facts.worst.items():
            limit = limits.get(name) if isinstance(limits, dict) else limits
            if limit is not None:
                verdicts.append(_moved(name, worst, limit))
        for name in (limits if isinstance(limits, dict) else {}).keys() - facts.worst.keys():
            verdicts.append(Verdict(name, False, f"{name}: the model gave no such output"))
        if self.max_changed is not None:
            verdicts.append(_changed(facts, self.max_changed))
        return verdicts

    def details(self, facts: InvarianceFacts) -> Sequence[Table | Note]:
        """Return what each condition changed as a table."""
        outputs = list(facts.worst)
        rows = {
            name: [
                *(Cell(output, Quantity(found.differences[output], digits=6)) for output in outputs),
                Cell("changed answers", Quantity(found.changed, digits=0)),
            ]
            for name, found in facts.conditions.items()
        }
        about = (
            f"{facts.rows} rows ({facts.sequences} sequences), on {facts.on}: each asked alone, unpadded, and then as "
            "the table says. Differences are the largest of any output value, from the row's answer alone."
        )
        return [Table("asked", rows), Note(about)]

    def headline(self, facts: InvarianceFacts) -> str:
        """Write how many answers depend on the batch."""
        return f"{facts.changed} of {facts.rows} answers depend on the batch" if facts.choices else ""

    def cells(self, facts: InvarianceFacts, side: str) -> Sequence[Cell]:
        """Return the share of changed answers and the largest difference of any output."""
        if side != "candidate":
            return []
        moved = [worst.difference for worst in facts.worst.values()]
        largest = None if facts.nonfinite or None in moved else max((m for m in moved if m is not None), default=None)
        cells = [Cell("moved by its batch", Quantity(largest, digits=6))]
        if facts.choices:
            share = 100 * facts.changed / max(1, facts.rows)
            cells.append(Cell("answers changed by its batch", Quantity(share, "%")))
        return cells


def _facts(
    found: Sequence[_beside.RowFound],
    conditions: Mapping[str, _beside.Condition],
    alone: _beside.Answers,
    sequences: int,
    on: str,
) -> InvarianceFacts:
    changed = [row for row in found if row.changed]
    first = max(changed, key=lambda row: row.largest, default=None)
    answers = {str(row.alone) for row in found if row.alone}
    return InvarianceFacts(
        rows=len(found),
        sequences=sequences,
        on=on,
        worst={
            output: MovedRow(row=row, condition=condition, difference=difference)
            for output, (difference, row, condition) in _beside.worst(conditions, alone.outputs).items()
        },
        conditions={
            name: ConditionFacts(
                differences={output: moved[0] for output, moved in seen.largest.items()}, changed=seen.changed
            )
            for name, seen in conditions.items()
        },
        changed=len(changed),
        choices=len(answers),
        first_changed=None
        if first is None
        else MovedRow(row=first.id, condition=next(iter(first.changed)), difference=first.largest),
        nonfinite=alone.broken + sum(seen.broken for seen in conditions.values()),
        values=alone.values + sum(seen.values for seen in conditions.values()),
    )


def _moved(output: str, worst: MovedRow, limit: float) -> Verdict:
    value = worst.difference
    shown = "NaN" if value is None else f"{value:.6g}"
    says = (
        f"{output} of a row differs by up to {shown} from its answer alone (row {worst.row}, {worst.condition}); "
        f"at most {limit:g} asked"
    )
    return Verdict(output, value is not None and value <= limit, says, value, limit)


def _changed(facts: InvarianceFacts, limit: float) -> Verdict:
    if facts.choices < 2:
        why = "the answer is no choice" if not facts.choices else "all rows have one answer, so that none can change"
        return Verdict("changed", False, f"max_changed: {why}; bound `max_difference` instead")
    share = facts.changed / facts.rows
    first = facts.first_changed
    row = "" if first is None else f" (row {first.row}, {first.condition})"
    says = f"{facts.changed} of {facts.rows} rows have another answer than alone{row}; at most {limit:.2%} asked"
    return Verdict("changed", share <= limit, says, share, limit)
