"""Publish what passed every gate as artifacts/NAME/<version>/, whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cpu_pipeline.core.errors import GateFailed, Refused
from cpu_pipeline.core.files import remove_tree, sync_dir, writing
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.latest import point
from cpu_pipeline.release.manifest import describe, edited
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.release.tree import copy_tree, home_of, make_home, require_no_link, sync_tree, write_tree
from cpu_pipeline.release.versions import announce, moving, promote, sweep
from cpu_pipeline.store.local import Store


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
        The version's directory, and whether it was written now; None for a plan without outputs, and for one
        that is withheld.

    Raises:
        PipelineError: the first error of the build, if it has any.
        GateFailed: a check failed; nothing is published, and the earlier version stays.
        Refused: the version exists, and was edited by hand.
        Damaged: an object is not what it was.
        Overtaken: something else than `standing` is in service by now.
    """
    require_passed(built)
    if not built.plan.outputs or built.plan.withheld is not None:
        return None
    home = home_of(built.plan, out)
    manifest = describe(built)
    version = str(manifest["version"])
    require_no_link(home / version)
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
        make_home(home)
        sweep(home)
        work = home / f".{version}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            if fresh:
                write_tree(built, store, manifest, work)
            with moving(home):
                if standing is not None:
                    standing.require_unmoved()  # from here on nobody else can move `latest`
                consent()
                move = announce(home, version, by, built.plan.promoted_anyway)
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
    require_built(built)
    if failed := failures(built):
        raise GateFailed("\n".join(failed))


def require_built(built: BuildResult) -> None:
    """Go on only when every step succeeded.

    Raises:
        PipelineError: the first error of the build, if it has any.
    """
    for error in built.errors.values():
        others = [str(e) for e in built.errors.values() if e is not error]
        raise type(error)("\n".join([str(error), *others]))


def failures(built: BuildResult) -> list[str]:
    """Say which checks failed, a line each."""
    return [f"step `{node}`: {v.says}" for node, found in built.verdicts.items() for v in found if not v.passed]


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
        copy_tree(work, stand_in)
        sync_tree(stand_in)
        point(home, stand_in.name)
        version.rename(work.with_name(f"{work.name}.old"))
        work.rename(version)
        point(home, version.name)
        remove_tree(stand_in)
