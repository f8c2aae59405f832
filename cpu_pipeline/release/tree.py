"""Write the tree of a version: its outputs, what its gates measured, and its documents."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import RecipeError, Refused
from cpu_pipeline.core.files import sync_dir
from cpu_pipeline.engine.result import BuildResult, Damaged
from cpu_pipeline.graph.plan import CHECKS, Plan
from cpu_pipeline.release.manifest import MANIFEST, dump
from cpu_pipeline.store.local import Store

REPORT = "report.md"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def home_of(plan: Plan, out: Path) -> Path:
    """Name the directory of a plan's artifacts.

    Raises:
        RecipeError: the name of the recipe's file is no name of a directory.
        Refused: it is a symbolic link.
    """
    if not _NAME.fullmatch(plan.name):
        raise RecipeError(f"{plan.path}: the file's name becomes a folder's; use letters, digits, . _ and -")
    home = out / plan.name
    require_no_link(home)
    return home


def require_no_link(path: Path) -> None:
    """Refuse to write through a symbolic link."""
    if path.is_symlink():
        raise Refused(f"{path} is a symbolic link; remove it, or choose another --out")


def make_home(home: Path) -> None:
    """Make the directory of a plan's artifacts.

    Raises:
        RecipeError: it can't be made.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError) as error:  # a link to a disk that is not there
        message = f"{home.parent} can't be made: {error.strerror}: {error.filename}; name another place"
        raise RecipeError(message) from error


def write_tree(built: BuildResult, store: Store, manifest: dict[str, Any], work: Path) -> None:
    """Write a version into a new directory.

    Args:
        built: the build.
        store: holds the objects that are copied.
        manifest: what `manifest.describe` returned for the build.
        work: the directory, which is made.

    Raises:
        Damaged: an object is not what it was.
    """
    work.mkdir()
    withheld = built.plan.withheld
    for name in (*built.plan.outputs, *(withheld.besides if withheld is not None else ())):
        _copy_object(built, store, name, work / name)
    for node, source in _evidence(built).items():
        _copy_object(built, store, source, work / CHECKS / node)
    _write_documents(built, manifest, work)
    sync_tree(work)


def _copy_object(built: BuildResult, store: Store, name: str, target: Path) -> None:
    if not store.check(built.artifacts[name]):
        raise Damaged(name)
    copy_tree(built.artifacts[name].path, target)


def _write_documents(built: BuildResult, manifest: dict[str, Any], work: Path) -> None:
    """Write the documents of a version; each lists the files before it by digest, the manifest all of them."""
    from cpu_pipeline.release.documents import model_card, origins, provenance, report, sbom

    made_of = origins.origins(built)
    # An artifact that has a README.md of its own keeps it: it is part of its digest.
    cards = {name: model_card.FILE for name in built.plan.outputs if not (work / name / model_card.FILE).exists()}
    for name, file in cards.items():
        _put(work / name / file, model_card.render(built, manifest, made_of, name))
    _put(work / REPORT, report.render(built, manifest))
    files = {p.relative_to(work).as_posix(): _listed(p) for p in sorted(work.rglob("*")) if p.is_file()}
    whole = {**manifest, "cards": cards, "files": files}
    _put(work / sbom.FILE, sbom.render(built, whole, made_of))
    files[sbom.FILE] = _listed(work / sbom.FILE)
    _put(work / provenance.FILE, provenance.dump_statement(provenance.make_statement(whole, made_of)))
    files[provenance.FILE] = _listed(work / provenance.FILE)
    _put(work / MANIFEST, dump(whole))


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _listed(path: Path) -> list[Any]:
    return [path.stat().st_size, digest_file(path)]


def sync_tree(root: Path) -> None:
    """Bring every file below a directory onto the disk."""
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            sync_dir(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _evidence(built: BuildResult) -> dict[str, str]:
    """Map folders below checks/ to nodes: each gate's own report, and the predictions it judged."""
    found = {}
    for gate in built.verdicts:
        found[gate] = gate
        for name, source in built.plan.nodes[gate].inputs.items():
            if built.plan.nodes[source].gives == "predictions":
                found[f"{gate}/{name}"] = source
    return found


def copy_tree(source: Path, target: Path) -> None:
    """Copy files, never link them: onnx refuses weights that are symlinks or have more than one hard link."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # copies by reference where the file system can
