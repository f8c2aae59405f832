"""What `run` prints of a recipe that was built: a table with a line for each output, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cpu_pipeline.cli.output import columns, patient, plain
from cpu_pipeline.core.errors import GateFailed
from cpu_pipeline.core.text import size

if TYPE_CHECKING:
    from pathlib import Path

    from cpu_pipeline.api import Outcome
    from cpu_pipeline.cli.json_outputs import FailedRun, RunOutput
    from cpu_pipeline.core.errors import PipelineError
    from cpu_pipeline.engine.result import BuildResult
    from cpu_pipeline.graph.plan import Plan
    from cpu_pipeline.stages._base import Verdict


def result(plan: Plan, outcome: Outcome) -> RunOutput:
    """Return what `--json` prints of a build that passed every gate."""
    built = outcome.built
    return {
        "recipe": plan.name,
        "exit_code": 0,
        "path": None if outcome.path is None else str(outcome.path),
        "fresh": outcome.fresh,
        "instead_of": outcome.instead_of,
        "not_for_service": list(outcome.withheld),
        "unchecked": dict(plan.unchecked),
        "waived": {gate: one.waived for gate, found in built.verdicts.items() for one in found if one.waived},
        "set": list(plan.sets),
        "promoted_anyway": built.plan.promoted_anyway,
        "built": built.made,
        "outputs": {
            name: {
                "format": built.artifacts[name].format,
                "digest": built.artifacts[name].digest,
                "size": built.records[name].size,
                "path": None if outcome.path is None else str(outcome.path / name),
            }
            for name in plan.outputs
        },
        "checks": built.verdicts,
        "steps": {
            n: {"key": built.keys[n], "digest": a.digest, "facts": dict(a.facts)} for n, a in built.artifacts.items()
        },
    }


def failure(plan: Plan, error: PipelineError) -> FailedRun:
    """Return what `--json` prints of a recipe that failed, when several were given."""
    return {
        "recipe": plan.name,
        "exit_code": error.exit_code,
        "error": type(error).__name__,
        "says": str(error),
        "report": error.report if isinstance(error, GateFailed) else None,
    }


def show(plan: Plan, outcome: Outcome) -> None:
    """Print a build that passed every gate, for people."""
    with patient(sys.stdout):
        table(outcome.built, outcome.path)
        for line in _lines(plan, outcome):
            print(plain(line))


@contextmanager
def shown_if_failed(*, as_json: bool) -> Iterator[None]:
    """Print the table of a build whose gates failed, for people, before its error is told."""
    try:
        yield
    except GateFailed as error:
        if error.built is not None and not as_json:
            with patient(sys.stdout):
                table(error.built, None)
        raise


def table(built: BuildResult, path: Path | None) -> None:
    """Print a line for each output: size, what its gates measured, their verdict, and where it is."""
    rows = [_row(built, name, path) for name in built.plan.outputs]
    if rows:
        # The path comes last: it may be longer than a line, and is copied whole.
        columns([("output", "size", "measured, and of the reference", "gates", "path"), *rows])


def _row(built: BuildResult, name: str, path: Path | None) -> tuple[str, ...]:
    gates = [gate for gate in built.verdicts if _judged(built, gate) == name]
    verdicts = [verdict for gate in gates for verdict in built.verdicts[gate]]
    says = [built.plan.nodes[gate].stage.headline(_facts(built, gate)) for gate in gates]
    state = _state(verdicts) if gates else "none"
    if name in built.plan.unchecked and state == "none":
        state = "unchecked"
    where = built.artifacts[name].path if path is None else path / name
    cells = (name, size(built.records[name].size), ", ".join(filter(None, says)) or "-", state, str(where))
    return tuple(plain(cell) for cell in cells)


def _state(verdicts: Sequence[Verdict]) -> str:
    """Say in a word what gates found: what failed outright before what is inconclusive."""
    failed = {verdict.outcome for verdict in verdicts if not verdict.passed}
    if "fail" in failed:
        return "FAILED"
    if failed:
        return "INCONCLUSIVE"
    if any(verdict.waived for verdict in verdicts):
        return "waived"
    return "inconclusive, passed" if any(verdict.outcome == "inconclusive" for verdict in verdicts) else "passed"


def caveats(built: BuildResult) -> list[str]:
    """Say what a reader must know of a build, besides why it is not for service, which stands beside its path."""
    from cpu_pipeline.release import caveats as release
    from cpu_pipeline.release.manifest import describe

    return release.caveats({**describe(built), "withheld": ()})


def _judged(built: BuildResult, gate: str) -> str:
    """Name the step that a gate judges, behind its predictions."""
    nodes = built.plan.nodes
    inputs = nodes[gate].inputs
    name = inputs.get("candidate") or next(iter(inputs.values()), "")
    return next(iter(nodes[name].inputs.values())) if name and nodes[name].gives == "predictions" else name


def _facts(built: BuildResult, gate: str) -> object:
    return built.plan.nodes[gate].stage.parse_facts(built.artifacts[gate].facts)


def _lines(plan: Plan, outcome: Outcome) -> Iterator[str]:
    built = outcome.built
    yield f"{plan.name}: {len(built.made)} steps built, {len(built.artifacts) - len(built.made)} cached"
    if outcome.path is None:
        return
    for caveat in caveats(built):
        yield f"warning  {caveat}"
    if outcome.withheld:
        what = "wrote" if outcome.fresh else "unchanged"
        yield f"{what}  {outcome.path}, not for service: {'; '.join(outcome.withheld)}"
    else:
        instead = f" (instead of {outcome.instead_of})" if outcome.instead_of else ""
        what = "wrote" if outcome.fresh else "promoted" if instead else "unchanged"
        yield f"{what}  {outcome.path}{instead}"
    yield f"report  {outcome.path / 'report.md'}"
