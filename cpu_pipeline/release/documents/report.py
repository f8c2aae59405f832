"""The report of a version in Markdown: sources, checks, figures, steps, how to load it; outside text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpu_pipeline.core.markdown import code, escape, table
from cpu_pipeline.core.text import size
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.documents.markdown import blocks
from cpu_pipeline.release.documents.report_data import Origin, ReportData, collect
from cpu_pipeline.release.flips import MOST, WAYS, Flip
from cpu_pipeline.stages._base import Verdict


def render(built: BuildResult, manifest: Mapping[str, Any]) -> str:
    """Write the report of a build that passed."""
    data = collect(built, manifest)
    lines = [f"# {escape(data.name)} {data.version}", ""]
    if data.about:
        lines += [escape(data.about), ""]
    for warning in data.warnings:
        lines += [f"**Warning:** {escape(warning)}", ""]
    lines += ["## Made of", *table(("what", "from", "commit"), (_origin(found) for found in data.origins))]
    lines += _checks(data)
    lines += _side_by_side(data)
    for found in data.details:
        lines += [f"### {code(found.step)}: {escape(found.use)}", "", *blocks(found.items)]
    for gate, flips in data.flips.items():
        lines += _flips(gate, flips)
    lines += _steps(data)
    lines += _made_with(data)
    lines += _usage(data)
    return "\n".join(lines)


def _origin(found: Origin) -> tuple[str, str, str]:
    rows = ""
    if found.name.startswith("data."):
        rows = f" ({'?' if found.rows is None else found.rows} rows)"
    commit = code(found.revision) if found.revision else "local, by content"
    return found.name, code(found.location) + rows, commit


def _checks(data: ReportData) -> list[str]:
    if not data.checks:
        return ["## Checks", "", "This recipe has no check: nothing here is proved.", ""]
    rows = [
        (
            code(check.gate),
            code(check.candidate),
            escape(check.verdict.check),
            _outcome(check.verdict),
            escape(check.verdict.says),
        )
        for check in data.checks
    ]
    return ["## Checks", "", *table(("check", "of", "what", "verdict", "says"), rows)]


def _outcome(verdict: Verdict) -> str:
    """Write what a check found: passed, failed, waived, or inconclusive."""
    if verdict.waived:
        return "**waived**"
    if verdict.outcome == "inconclusive":
        return "inconclusive, passed with a warning" if verdict.passed else "**inconclusive**"
    return "passed" if verdict.passed else "**failed**"


def _side_by_side(data: ReportData) -> list[str]:
    """Write everything that was measured of each model in one row; nothing for a single model."""
    if len(data.models) < 2:
        return []
    columns = list(dict.fromkeys(cell.heading for model in data.models for cell in model.cells))
    rows = []
    for model in data.models:
        cells = {cell.heading: str(cell.quantity) for cell in model.cells}
        rows.append((code(model.name), model.format, size(model.size), *(cells.get(column, "") for column in columns)))
    return ["## Side by side", *table(("model", "format", "size", *map(escape, columns)), rows)]


def _flips(gate: str, flips: Sequence[Flip]) -> list[str]:
    """List the rows that flipped, at most MOST of each kind: lost rows first."""
    lines = [f"## Rows that flipped: {code(gate)}", ""]
    for way, says in WAYS.items():
        found = [flip for flip in flips if flip.way == way]
        if not found:
            continue
        lines += [f"{len(found)} rows {says}.", ""]
        head = ("row", "score", "reference", "candidate", "text")
        lines += table(head, (_flip(flip) for flip in found[:MOST]))
        if len(found) > MOST:
            lines += [f"and {len(found) - MOST} more: `cpu-pipeline flips` prints them all.", ""]
    return lines


def _flip(flip: Flip) -> tuple[str, ...]:
    sides = (_fields(flip.reference), _fields(flip.candidate))
    return code(flip.id), escape(flip.score), *sides, _fields(flip.row)


def _fields(values: Mapping[str, Any]) -> str:
    return escape("; ".join(f"{key}: {value}" for key, value in values.items()))


def _steps(data: ReportData) -> list[str]:
    rows = (
        (
            code(step.name),
            code(step.use),
            step.format,
            "" if step.size is None else size(step.size),
            "" if step.seconds is None else f"{step.seconds:.1f}",
            "" if step.peak_memory is None else size(step.peak_memory),
            code(step.digest[:12]),
        )
        for step in data.steps
    )
    return ["## Steps", *table(("step", "stage", "format", "size", "seconds", "peak memory", "digest"), rows)]


def _made_with(data: ReportData) -> list[str]:
    packages = ((escape(name), escape(version)) for name, version in data.packages.items())
    lines = ["## Made with", *table(("package", "version"), packages)]
    for name, found in data.environments.items():
        versions = ", ".join(escape(f"{package} {version}") for package, version in found["packages"].items())
        lines += [f"In the environment {code(name)} (pins {code(found['pins'][:12])}): {versions}.", ""]
    host = data.host
    about = f"Machine: {escape(host['cpu'])}, {host['cores']} cores, {host['memory_gib']} GiB"
    return [*lines, f"{about}; instruction sets {code(' '.join(host['isa']))}.", ""]


def _usage(data: ReportData) -> list[str]:
    lines = ["## How to load", ""]
    for usage in data.usages:
        lines += [f"{code(usage.output)} ({usage.format}):", "", "```python", usage.code, "```", ""]
    return lines
