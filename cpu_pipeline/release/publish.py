"""Publish what passed every gate as artifacts/NAME/<version>/, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import GateFailed, RecipeError, Refused
from cpu_pipeline.core.files import remove_tree, sync_dir, writing
from cpu_pipeline.engine.result import BuildResult, Damaged
from cpu_pipeline.graph.plan import CHECKS
from cpu_pipeline.release.documents import model_card, origins, provenance, report, sbom
from cpu_pipeline.release.latest import point
from cpu_pipeline.release.manifest import MANIFEST, describe, edited
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.release.versions import announce, moving, promote, sweep
from cpu_pipeline.store.local import Store

REPORT = "report.md"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def publish(
    built: BuildResult,
    store: Store,
    out: Path,
    *,
    force: bool = False,
    by: str = "run",
    standing: Standing | None = None,
    consent: Callable[[], None] = lambda: None,
) -> tuple[Path, bool] | None:
    """Write the outputs of a build as a version, and put it into service.

    Args:
        built: the build; its plan names the outputs.
        store: holds the objects that are copied.
        out: the version becomes `out/NAME/<version>/`.
        force: overwrite a version that was edited by hand.
        by: the command that publishes; promotions.jsonl names it.
        standing: what the build was compared with; it must still be in service.
        consent: called under the lock of `latest`, before it moves; nothing is put into service when it raises.

    Returns:
        The version's directory, and whether it was written now; None for a plan without outputs.

    Raises:
        PipelineError: the first error of the build, if it has any.
        GateFailed: a check failed; nothing is published, and the earlier version stays.
        Refused: the version exists, and was edited by hand.
        Damaged: an object is not what it was.
        Overtaken: something else than `standing` is in service by now.
    """
    require_passed(built)
    if not built.plan.outputs:
        return None
    name = built.plan.name
    if not _NAME.fullmatch(name):
        raise RecipeError(f"{built.plan.path}: the file's name becomes a folder's; use letters, digits, . _ and -")
    manifest = describe(built)
    home, version = out / name, str(manifest["version"])
    for path in (home, home / version):
        if path.is_symlink():
            raise Refused(f"{path} is a symbolic link; remove it, or choose another --out")
    if standing is not None and standing.folder == home / version:
        changed = list(standing.edited)  # hashed already
    else:
        changed = edited(home / version) if (home / version).exists() else []
    if changed and not force:
        raise Refused(
            f"{home / version} was edited since it was written ({', '.join(changed[:5])}"
            f"{', ...' if len(changed) > 5 else ''}); move it away, or overwrite it with --force"
        )
    fresh = bool(changed) or not (home / version).exists()
    with writing(out):
        try:
            home.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:  # a link to a disk that is not there
            raise RecipeError(f"{out} can't be made: {error.strerror}: {error.filename}; name another place") from error
        sweep(home)
        work = home / f".{version}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            if fresh:
                _write(built, store, manifest, work)
            with moving(home):
                if standing is not None:
                    standing.require_unmoved()  # from here on nobody else can move `latest`
                consent()
                move = announce(home, version, by)
                if fresh:
                    _swap(work, home / version)
                promote(home, version, by, move)
        finally:
            remove_tree(work)
        sweep(home)  # what `latest` named until now
    return home / version, fresh


def require_passed(built: BuildResult) -> None:
    """Go on only when everything was built and every check passed.

    Raises:
        PipelineError: the first error of the build, if it has any.
        GateFailed: a check failed.
    """
    for error in built.errors.values():
        others = [str(e) for e in built.errors.values() if e is not error]
        raise type(error)("\n".join([str(error), *others]))
    failed = [(n, v) for n, found in built.verdicts.items() for v in found if not v.passed]
    if failed:
        raise GateFailed("\n".join(f"step `{node}`: {verdict.says}" for node, verdict in failed))


def _write(built: BuildResult, store: Store, manifest: dict[str, Any], work: Path) -> None:
    work.mkdir()
    for name in built.plan.outputs:
        artifact = built.artifacts[name]
        if not store.check(artifact):
            raise Damaged(name)
        _copy_tree(artifact.path, work / name)
    for node, source in _evidence(built).items():
        if not store.check(built.artifacts[source]):
            raise Damaged(source)
        _copy_tree(built.artifacts[source].path, work / CHECKS / node)
    _write_documents(built, manifest, work)
    _sync_tree(work)


def _write_documents(built: BuildResult, manifest: dict[str, Any], work: Path) -> None:
    """Write the documents of a version; each lists the files before it by digest, the manifest all of them."""
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
    _put(work / MANIFEST, json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _listed(path: Path) -> list[Any]:
    return [path.stat().st_size, digest_file(path)]


def _sync_tree(root: Path) -> None:
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


def _copy_tree(source: Path, target: Path) -> None:
    """Copy files, never link them: onnx refuses weights that are symlinks or have more than one hard link."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # copies by reference where the file system can


def _swap(work: Path, version: Path) -> None:
    """Put a finished version in its place; `latest` names a whole version at every moment."""
    home = version.parent
    try:
        work.rename(version)
    except OSError:
        if not version.exists():
            raise
    else:
        sync_dir(home)
        return
    if not version.is_dir():
        raise Refused(f"{version} is in the way; move it away, or choose another --out")
    # Hashed again, under the lock: another build may have put the same version there while this one was writing.
    if edited(version):
        stand_in = work.with_name(f"{work.name}.copy")
        _copy_tree(work, stand_in)
        _sync_tree(stand_in)
        point(home, stand_in.name)
        version.rename(work.with_name(f"{work.name}.old"))
        work.rename(version)
        point(home, version.name)
        remove_tree(stand_in)
