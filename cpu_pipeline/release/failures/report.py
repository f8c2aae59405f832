"""Collect the report of a failed build, and write it as Markdown; outside text is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpu_pipeline.core.markdown import code, escape, table
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.recipe import field_docs
from cpu_pipeline.release import flips
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.failures.data import Advice, FailedCheck, FailedGate, Failure, LostRow, Trace
from cpu_pipeline.release.failures.rows import lost_rows
from cpu_pipeline.release.failures.trace import trace
from cpu_pipeline.stages._base import Verdict

Verdicts = Mapping[str, Sequence[Verdict]]
"""Gate -> its verdicts."""
SHOWN = 50
"""Rows that the Markdown shows of each gate."""


def collect(built: BuildResult, verdicts: Verdicts, builder: Builder, run: str, in_service: str | None) -> Failure:
    """Collect why a build failed.

    Args:
        built: the build; its plan has the gates, or most of them.
        verdicts: every gate that was asked, also one that compares with what is in service.
        builder: judges the steps on the way to a candidate.
        run: id of the run.
        in_service: the version that stays in service.
    """
    failed = {gate: [v for v in found if not v.passed] for gate, found in verdicts.items()}
    gates = [_gate(built, gate, found, builder) for gate, found in failed.items() if found]
    withheld = built.plan.withheld.reasons if built.plan.withheld is not None else ()
    return Failure(built.plan.name, run, gates, in_service, withheld)


def _gate(built: BuildResult, gate: str, failed: Sequence[Verdict], builder: Builder) -> FailedGate:
    checks = [FailedCheck(v.check, v.says, v.value, v.bound, str(v.outcome), _by(v)) for v in failed]
    node = built.plan.nodes.get(gate)
    if node is None:  # it compares with what is in service, and is in no plan of the recipe
        own = gate.partition("@")[0]
        use = built.plan.nodes[own].use if own in built.plan.nodes else ""
        return FailedGate(gate, use, "", checks, Trace((), says="it compares with what is in service"), (), 0, 0, ())
    found = trace(built, gate, builder)
    rows, lost, compared = lost_rows(built, gate)
    won = [flip for flip in flips.of_build(built, gate) if flip.way == "won"]
    return FailedGate(
        gate,
        node.use,
        found.steps[-1],
        checks,
        found,
        rows,
        lost,
        compared,
        list(_advice(built, gate, found)),
        [LostRow(flip.id, flip.row, flip.reference, flip.candidate) for flip in won[:SHOWN]],
        len(won),
    )


def _by(verdict: Verdict) -> float | None:
    if verdict.value is None or verdict.bound is None:
        return None
    return abs(verdict.value - verdict.bound)


def _advice(built: BuildResult, gate: str, found: Trace) -> Iterator[Advice]:
    """Name the options of the step that lost it, or of the last that may have, and of the gate itself."""
    nodes = built.plan.nodes
    suspects = [found.step] if found.step else [] if found.reference_fails else list(reversed(found.steps))
    for name in (*suspects, gate):
        stage = nodes[name].stage
        documented = field_docs.fields(type(stage)) if stage.remedies else {}
        for option in stage.remedies:
            if name == gate and getattr(stage, option) is None:
                continue  # a bound that is not set fails nothing
            yield Advice(name, option, getattr(stage, option), documented.get(option, ""))


def render(failure: Failure, says: str) -> str:
    """Write the report.

    Args:
        failure: why the build failed.
        says: what became of it, in a sentence.
    """
    lines = [f"# {escape(failure.name)}: not put into service", "", escape(says), ""]
    lines += (
        [f"**Warning:** Not for service anyhow: {escape('; '.join(failure.withheld))}.", ""] if failure.withheld else []
    )
    rows = [
        (
            code(gate.gate),
            code(gate.candidate),
            escape(check.check),
            check.outcome,
            _number(check.by),
            escape(check.says),
        )
        for gate in failure.gates
        for check in gate.checks
    ]
    lines += ["## Failed checks", *table(("gate", "of", "what", "verdict", "beyond the bound by", "says"), rows)]
    for gate in failure.gates:
        lines += [f"## {code(gate.gate)}: {escape(gate.use)}", "", *_trace(gate), *_rows(gate), *_next(gate)]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _trace(gate: FailedGate) -> list[str]:
    found = gate.trace
    way = f" (made by {' → '.join(map(code, found.steps))})" if len(found.steps) > 1 else ""
    lost = f"Lost by {code(found.step)}: {escape(found.says)}" if found.step else f"Lost by: {escape(found.says)}"
    lines = ["### Where it was lost", "", f"{lost}{way}.", ""]
    if found.judged:
        lines += table(("step", "says the gate"), ((code(step), escape(says)) for step, says in found.judged.items()))
    return lines


def _rows(gate: FailedGate) -> list[str]:
    if not gate.of:
        return []
    lines = [
        "### Rows that flipped",
        "",
        f"{gate.lost} of {gate.of} rows are answered worse than by the reference (for a correlation: otherwise).",
        "",
    ]
    lines += _listed(gate.rows, gate.lost)
    if gate.won:
        lines += [f"{gate.won} rows are answered better than by the reference.", "", *_listed(gate.won_rows, gate.won)]
    return lines


def _listed(rows: Sequence[LostRow], count: int) -> list[str]:
    """List rows with both answers; all of them are in flips.jsonl, which `cpu-pipeline flips` prints."""
    if not rows:
        return []
    lines = table(
        ("row", "text", "reference", "candidate"),
        ((code(row.id), _fields(row.row), _fields(row.reference), _fields(row.candidate)) for row in rows[:SHOWN]),
    )
    more = count - min(len(rows), SHOWN)
    return [*lines, f"and {more} more.", ""] if more else lines


def _fields(values: Mapping[str, Any]) -> str:
    return escape("; ".join(f"{key}: {value}" for key, value in values.items()))


def _next(gate: FailedGate) -> list[str]:
    lines = ["### What to try next", ""]
    rows = ((code(f"{a.step}.{a.option}"), code(_written(a.now)), escape(a.about)) for a in gate.advice)
    if gate.advice:
        lines += ["Options, the first to try first; try one with `--set STEP.OPTION=VALUE`.", ""]
        lines += table(("option", "now", "what it does"), rows)
    lines += ["Look at the rows above, if any: a wrong label, or a text that the model never saw, is no loss.", ""]
    return lines


def _written(value: Any) -> str:
    if value is None or value == ():
        return "not set"
    return str(list(value)) if isinstance(value, tuple) else str(value)
