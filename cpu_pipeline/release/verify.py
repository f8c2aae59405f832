"""Check that a version on disk is as it was written, that its provenance agrees, and that this CPU can run it.

Nothing heavy is imported: this is what a machine does before it trusts what it was sent. What is not signed can be
forged whole; a signature over provenance.json covers every file of the version.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import CARD, Card, digest_listing
from cpu_pipeline.core.errors import RecipeError, Refused, newer_format
from cpu_pipeline.release.documents import provenance
from cpu_pipeline.release.manifest import MANIFEST, MANIFEST_FORMAT, VERSION, artifact_files, edited, parse, version_of
from cpu_pipeline.store import contents
from cpu_pipeline.store.contents import StoreProblem
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import MOST


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Ran(_Strict):
    """Figures within the bounds that hold for records, too."""

    when: float = Field(0, ge=0, lt=MOST["when"])
    seconds: float = Field(0, ge=0, lt=MOST["seconds"])
    peak_memory: float = Field(0, ge=0, lt=MOST["peak_memory"])


class _StepShape(_Strict):
    use: str
    inputs: dict[str, str]
    options: dict[str, Any]
    key: str
    digest: str
    format: str
    run: _Ran


class _Output(_Strict):
    format: str
    digest: str


class _Environment(_Strict):
    pins: str
    packages: dict[str, str]


class _Host(_Strict):
    isa: list[str]


class _Shape(_Strict):
    """What a manifest holds, as far as it is looked at here."""

    name: str
    version: str = Field(pattern=f"^{VERSION.pattern}$")
    recipe: dict[str, Any]
    outputs: dict[str, _Output] = Field(min_length=1)
    steps: dict[str, _StepShape]
    packages: dict[str, str]
    environments: dict[str, _Environment]
    host: _Host
    files: dict[str, tuple[Annotated[int, Field(ge=0)], str]]
    cards: dict[str, str] = {}


@dataclass(frozen=True)
class Verified:
    """A version that is what was written."""

    name: str
    version: str
    files: int
    missing: Mapping[str, list[str]]
    """Output -> instruction sets that it needs and this CPU lacks."""


def verify(folder: Path) -> Verified:
    """Hash a version again, and compare manifest, outputs and provenance with each other.

    Raises:
        RecipeError: there is no version in the folder, or one of a newer format.
        Refused: something is not as it was written.
    """
    if not (folder / MANIFEST).is_file():
        raise RecipeError(f"{folder}: no {MANIFEST}; name a version's folder, such as artifacts/NAME/latest")
    manifest = _manifest(folder)
    version_folder = folder.resolve()  # where `latest` leads
    if VERSION.fullmatch(version_folder.name) and version_folder.name != manifest["version"]:
        raise Refused(f"{folder}: is called {version_folder.name}, and its {MANIFEST} is that of {manifest['version']}")
    if changed := edited(version_folder):
        raise Refused(f"{folder}: differs from its manifest: {', '.join(map(provenance.shown, changed))}")
    if (version := version_of(manifest)) != manifest["version"]:
        raise Refused(
            f"{folder}: {MANIFEST} says version {manifest['version']}, and its recipe, steps and outputs are {version}"
        )
    for name, output in manifest["outputs"].items():
        listed = {file: tuple(manifest["files"][f"{name}/{file}"]) for file in artifact_files(manifest, name)}
        if not listed or digest_listing(listed) != output["digest"]:
            message = f"the files of {provenance.shown(name)} are not the artifact that {MANIFEST} names by its digest"
            raise Refused(f"{folder}: {message}")
    lacking = {name: missing(folder / name, said["format"]) for name, said in manifest["outputs"].items()}
    if provenance.FILE not in manifest["files"]:
        raise Refused(
            f"{folder}: no {provenance.FILE}: it was written before versions had one; move the folder away and run its "
            "recipe again"
        )
    text = (folder / provenance.FILE).read_text(encoding="utf-8", errors="replace")
    if wrong := provenance.check_statement(text, manifest):
        raise Refused(f"{folder}: {provenance.FILE}: {wrong[0]}")
    return Verified(manifest["name"], version, len(manifest["files"]), lacking)


@dataclass(frozen=True)
class ForeignObject:
    """An object of a store that this CPU can't run."""

    object: str
    """Digest of the artifact."""
    stage: str
    """The stage that wrote it."""
    lacks: list[str]
    """Instruction sets that it needs and this CPU lacks."""


def verify_store(store: Store, *, repair: bool = False) -> tuple[list[StoreProblem], list[ForeignObject]]:
    """Read every object and record of a store whole; return what is wrong, and what this CPU can't run.

    Args:
        store: the store.
        repair: set damaged objects aside, and drop records of nothing.
    """
    problems = contents.verify(store, repair)
    damaged = {problem.path for problem in problems}
    foreign = []
    for entry in contents.entries(store):
        if (path := store.path_of(entry.object)) in damaged:
            continue
        try:
            if lacks := missing(path, entry.format):
                foreign.append(ForeignObject(entry.object, entry.stage, lacks))
        except Refused as error:  # the object is as it was written: its stage wrote nonsense
            damaged.add(path)
            problems.append(StoreProblem("damaged", path, str(error)))
    return problems, foreign


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        number = manifest.get("manifest")
    except (ValueError, RecursionError, AttributeError) as error:
        raise Refused(f"{path}: damaged: it is no JSON object") from error
    if isinstance(number, int) and number > MANIFEST_FORMAT:
        raise newer_format(path, number, MANIFEST_FORMAT)
    try:
        manifest = parse(text.encode())
    except ValueError as error:
        raise Refused(f"{path}: damaged: {error}") from error
    try:
        _Shape.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = provenance.shown(".".join(map(str, first["loc"])))
        raise Refused(f"{path}: damaged: {at}: {first['msg'].lower()}") from error
    whole: dict[str, Any] = manifest
    return whole


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    """Read a number; one too large for a float would be read as infinite, which nothing can be written as again."""
    return number if math.isfinite(number := float(text)) else _refuse(text)


def missing(path: Path, format: str) -> list[str]:
    """List the instruction sets that an artifact needs and this CPU lacks.

    Raises:
        Refused: the card is damaged.
    """
    try:
        return host.missing(Card.read(path, format).needs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{path}: its {CARD} is damaged") from error
