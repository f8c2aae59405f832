"""What changed between two versions of an artifact, or two runs: request, packages and outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpu_pipeline import stages
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.text import size
from cpu_pipeline.engine.keys import differences
from cpu_pipeline.release.manifest import read_manifest
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import reader

PARTS = {"recipe", "packages", "environments", "host", "steps", "checks"}
"""What is compared of a manifest."""
RUN_ID = re.compile(r"\d{4,8}(T|$)")
"""The first characters of a run's id."""

Kind = Literal["recipe", "package", "environment", "machine", "step", "operator", "size", "figure", "verdict"]


@dataclass(frozen=True)
class Change:
    """One thing that is not the same in both."""

    kind: Kind
    """What differs."""
    of: str
    """Step, or nothing."""
    says: str
    """The change: old → new."""


def diff(old: Path | str, new: Path | str, store: Store | None = None) -> list[Change]:
    """Compare two versions or runs; nothing is loaded but what they say of themselves.

    Args:
        old: the folder of a version (`latest` is one too) or of a run, or how the id of a run begins.
        new: another one.
        store: whose runs ids name; ids name nothing when None.

    Raises:
        RecipeError: one of them is no version and no run of ours, or a run that built not everything.
    """
    before, after = _manifest(old, store), _manifest(new, store)
    changes = [Change("recipe", "", says) for says in differences(before["recipe"], after["recipe"])]
    packages = differences({"packages": before["packages"]}, {"packages": after["packages"]})
    changes += [Change("package", "", says) for says in packages]
    pins = ({name: said["pins"] for name, said in one["environments"].items()} for one in (before, after))
    changes += [Change("environment", "", says) for says in differences(*pins)]
    changes += [Change("machine", "", says) for says in differences(before["host"], after["host"])]
    for name in dict.fromkeys([*before["steps"], *after["steps"]]):
        changes += _step(name, before["steps"].get(name), after["steps"].get(name))
    return changes + list(_verdicts(before["checks"], after["checks"]))


def _manifest(named: Path | str, store: Store | None) -> dict[str, Any]:
    folder = Path(named)
    if store is not None and not folder.exists() and RUN_ID.match(str(named)):
        folder = reader.find_run(store, str(named))
    if (folder / reader.RUN).exists():
        return _of_run(folder)
    try:
        said = read_manifest(folder)
        whole = said.keys() >= PARTS
    except (OSError, ValueError, AttributeError) as error:
        says = f"{named}: no version of an artifact: it has no manifest.json that can be read"
        raise RecipeError(f"{says}; nor is it a run of `cpu-pipeline history`") from error
    if not whole:
        raise RecipeError(f"{named}: its manifest.json was written by another version of cpu-pipeline")
    return said


def _of_run(folder: Path) -> dict[str, Any]:
    said = reader.read_run(folder)
    if said is None:
        raise RecipeError(f"{folder / reader.RUN}: not a whole record of a run")
    found = said.get("manifest")
    if not isinstance(found, dict):
        raise RecipeError(f"{folder.name}: this run ({said.get('command')}) built not everything: nothing to compare")
    if not found.keys() >= PARTS:
        raise RecipeError(f"{folder / reader.RUN}: written by another version of cpu-pipeline")
    read: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))  # in the order of a version's manifest
    return read


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
    ours, theirs = _figures(before), _figures(after)
    for column in dict.fromkeys([*ours, *theirs]):
        if ours.get(column) != theirs.get(column):
            yield Change("figure", name, f"{column}: {ours.get(column, 'none')} → {theirs.get(column, 'none')}")


def _bytes(facts: Mapping[str, Any]) -> int:
    """Return the bytes of a step's model."""
    said = facts.get("bytes", 0)
    return sum(said.values()) if isinstance(said, Mapping) else int(said)


def _figures(step: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what a gate measured of its candidate: heading -> figure; nothing where its stage cannot be found or read.

    The stage may be of another distribution, or of a later version that writes other facts.
    """
    try:
        stage = stages.get(step["use"]).model_construct(**step["options"])
        cells = stage.cells(stage.parse_facts(step["facts"]), "candidate")
    except (PipelineError, ValueError):
        return {}
    return {cell.heading: str(cell.quantity) for cell in cells}


def _verdicts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for gate in dict.fromkeys([*before, *after]):
        old, new = ({v["check"]: v["bound"] for v in one.get(gate, [])} for one in (before, after))
        yield from (Change("verdict", gate, f"bound of {says}") for says in differences(old, new))
