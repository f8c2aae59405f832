"""What the report of a version shows, collected once as plain values: no Markdown, no HTML, nothing escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpu_pipeline import backends
from cpu_pipeline.core.figures import Cell, Note, Table
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import NOT_MODELS
from cpu_pipeline.release.caveats import caveats
from cpu_pipeline.release.flips import Flip, of_build
from cpu_pipeline.stages._base import Verdict

SOURCES = ("model", "tokenizer", "teacher")
"""Keys of a recipe that name a source of one model's files."""


@dataclass(frozen=True)
class Origin:
    """One source of the recipe."""

    name: str
    """Such as `model` or `data.validation`."""
    location: str
    """Repository, folder or file."""
    revision: str | None
    """Full commit; None for local files, which their content identifies."""
    rows: int | None = None
    """Rows that were read; None for what is no data."""


@dataclass(frozen=True)
class Check:
    """One verdict of a gate."""

    gate: str
    candidate: str
    """Step whose output was checked."""
    verdict: Verdict


@dataclass(frozen=True)
class Model:
    """One model and everything that was measured of it."""

    name: str
    format: str
    size: int
    """Bytes."""
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Details:
    """What one step reports besides its verdicts."""

    step: str
    use: str
    items: Sequence[Table | Note]


@dataclass(frozen=True)
class StepRow:
    """One step of the build."""

    name: str
    use: str
    format: str
    digest: str
    size: int | None
    """Bytes; None of what is no model."""
    seconds: float | None
    peak_memory: int | None
    """Bytes."""


@dataclass(frozen=True)
class Usage:
    """How one output is loaded."""

    output: str
    format: str
    code: str
    """Lines of Python."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows, in the order in which it shows it."""

    name: str
    version: str
    about: str | None
    warnings: Sequence[str]
    origins: Sequence[Origin]
    checks: Sequence[Check]
    models: Sequence[Model]
    """Models that were measured, references first."""
    details: Sequence[Details]
    flips: Mapping[str, Sequence[Flip]]
    """Gate -> the rows whose answers its candidate lost or won."""
    steps: Sequence[StepRow]
    packages: Mapping[str, str]
    """Package -> version."""
    environments: Mapping[str, Mapping[str, Any]]
    """Name -> its `pins` (a digest), `packages` and `warning`."""
    host: Mapping[str, Any]
    """`cpu`, `cores`, `memory_gib` and `isa` of the machine."""
    usages: Sequence[Usage]


def collect(built: BuildResult, manifest: Mapping[str, Any]) -> ReportData:
    """Collect the figures of a build that passed."""
    plan = built.plan
    return ReportData(
        name=plan.name,
        version=manifest["version"],
        about=plan.recipe.about,
        warnings=[*caveats(manifest), *_of_environments(manifest), *_of_gates(built)],
        origins=list(_origins(manifest)),
        checks=list(_checks(built)),
        models=_models(built),
        details=list(_details(built)),
        flips={gate: found for gate in built.verdicts if (found := of_build(built, gate))},
        steps=list(_steps(built, manifest)),
        packages=manifest["packages"],
        environments=manifest["environments"],
        host=manifest["host"],
        usages=[_usage(built, name) for name in plan.outputs],
    )


def _of_environments(manifest: Mapping[str, Any]) -> list[str]:
    return [found["warning"] for found in manifest["environments"].values() if found["warning"]]


def _of_gates(built: BuildResult) -> list[str]:
    """Say what gates let pass with a warning."""
    return [f"{gate}: {verdict.says}" for gate, found in built.verdicts.items() for verdict in found if verdict.warning]


def _origins(manifest: Mapping[str, Any]) -> Iterator[Origin]:
    recipe = manifest["recipe"]
    for name in SOURCES:
        if name in recipe:
            yield Origin(name, _location(recipe[name]), recipe[name].get("revision"))
    for role, source in recipe.get("data", {}).items():
        facts = manifest["steps"].get(f"data.{role}", {}).get("facts", {})
        yield Origin(f"data.{role}", _location(source), source.get("revision"), facts.get("rows"))


def _location(source: Mapping[str, Any]) -> str:
    return str(source.get("hub") or source.get("folder") or source.get("file"))


def _checks(built: BuildResult) -> Iterator[Check]:
    for gate, verdicts in built.verdicts.items():
        candidate = next(iter(built.plan.nodes[gate].inputs.values()), "").split(":")[-1]
        yield from (Check(gate, candidate, verdict) for verdict in verdicts)


def _models(built: BuildResult) -> list[Model]:
    """Gather the cells of each measured model; where two gates fill one column of a candidate, the last one counts."""
    found: dict[str, dict[str, Cell]] = {}
    for side in ("reference", "candidate"):
        for gate, node in built.plan.nodes.items():
            if gate not in built.verdicts or side not in node.inputs:
                continue
            facts = node.stage.parse_facts(built.artifacts[gate].facts)
            cells = {cell.heading: cell for cell in node.stage.cells(facts, side)}
            known = found.get(model := node.inputs[side].split(":")[-1], {})
            # A reference is measured beside each candidate; the first time stands for all.
            found[model] = cells | known if side == "reference" else known | cells
    return [
        Model(name, built.artifacts[name].format, _size(built, name), list(cells.values()))
        for name, cells in found.items()
        if cells
    ]


def _details(built: BuildResult) -> Iterator[Details]:
    for name, artifact in built.artifacts.items():
        node = built.plan.nodes[name]
        if items := node.stage.details(node.stage.parse_facts(artifact.facts)):
            yield Details(name, node.use, items)


def _steps(built: BuildResult, manifest: Mapping[str, Any]) -> Iterator[StepRow]:
    for name, step in manifest["steps"].items():
        size = None if built.artifacts[name].format in NOT_MODELS else _size(built, name)
        run = step["run"]
        yield StepRow(
            name, step["use"], step["format"], step["digest"], size, run.get("seconds"), run.get("peak_memory")
        )


def _size(built: BuildResult, name: str) -> int:
    return sum(path.stat().st_size for path in built.artifacts[name].path.rglob("*") if path.is_file())


def _usage(built: BuildResult, name: str) -> Usage:
    format = built.artifacts[name].format
    return Usage(name, format, backends.get(format).usage(name, built.plan.context.task).strip())
