"""What changed between two versions of an artifact: what was asked, what it was made with, what came out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpu_pipeline import registry
from cpu_pipeline.errors import PipelineError, RecipeError
from cpu_pipeline.keys import differences
from cpu_pipeline.markdown import size
from cpu_pipeline.publish import read_manifest

Kind = Literal["recipe", "package", "environment", "machine", "step", "operator", "size", "figure", "verdict"]


@dataclass(frozen=True)
class Change:
    """One thing that is not the same in both."""

    kind: Kind
    of: str
    """Step, or nothing."""
    says: str


def diff(old: Path, new: Path) -> list[Change]:
    """Compare two versions' folders (`latest` is one too); nothing is loaded but their manifests.

    Raises:
        RecipeError: one of them is no version of ours.
    """
    before, after = _manifest(old), _manifest(new)
    changes = [Change("recipe", "", says) for says in differences(before["recipe"], after["recipe"])]
    packages = differences({"packages": before["packages"]}, {"packages": after["packages"]})
    changes += [Change("package", "", says) for says in packages]
    pins = ({name: said["pins"] for name, said in one["environments"].items()} for one in (before, after))
    changes += [Change("environment", "", says) for says in differences(*pins)]
    changes += [Change("machine", "", says) for says in differences(before["host"], after["host"])]
    for name in dict.fromkeys([*before["steps"], *after["steps"]]):
        changes += _step(name, before["steps"].get(name), after["steps"].get(name))
    return changes + list(_verdicts(before["checks"], after["checks"]))


def _manifest(version: Path) -> dict[str, Any]:
    try:
        said = read_manifest(version)
        whole = {"recipe", "packages", "environments", "host", "steps", "checks"} <= said.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"{version}: no version of an artifact: it has no manifest.json that can be read") from error
    if not whole:
        raise RecipeError(f"{version}: its manifest.json was written by another version of cpu-pipeline")
    return said


def _step(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[Change]:
    if before is None or after is None:
        there = after or before or {}
        yield Change("step", name, f"{'new' if before is None else 'gone'} ({there['use']})")
        return
    if before["use"] != after["use"]:
        yield Change("step", name, f"{before['use']} → {after['use']}")
        return
    yield from (Change("step", name, says) for says in differences(before["options"], after["options"]))
    if before["digest"] == after["digest"]:
        return
    yield Change("step", name, f"came out different: {before['digest'][:12]} → {after['digest'][:12]}")
    old, new = before["facts"], after["facts"]
    if _bytes(old) != _bytes(new):
        yield Change("size", name, f"{size(_bytes(old))} → {size(_bytes(new))}")
    counts = old.get("operators", {}), new.get("operators", {})
    yield from (Change("operator", name, says) for says in differences(*counts))
    ours, theirs = _cells(before), _cells(after)
    for column in dict.fromkeys([*ours, *theirs]):
        if ours.get(column) != theirs.get(column):
            told = column.replace("\\", "")  # cells are Markdown
            yield Change("figure", name, f"{told}: {ours.get(column, 'none')} → {theirs.get(column, 'none')}")


def _bytes(facts: Mapping[str, Any]) -> int:
    """Sum what a step says of the bytes of its model."""
    said = facts.get("bytes", 0)
    return sum(said.values()) if isinstance(said, Mapping) else int(said)


def _cells(step: Mapping[str, Any]) -> Mapping[str, str]:
    """Give what a gate measured of its candidate, as the report puts it; nothing where its stage is not here."""
    try:
        stage = registry.stage_class(step["use"]).model_construct(**step["options"])
        return stage.cells(step["facts"], "candidate")
    except (PipelineError, KeyError):
        return {}


def _verdicts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for gate in dict.fromkeys([*before, *after]):
        old, new = ({v["check"]: v["bound"] for v in one.get(gate, [])} for one in (before, after))
        yield from (Change("verdict", gate, f"bound of {says}") for says in differences(old, new))
