"""The versions of one artifact: which is in service, in what order they were, and moving between them.

artifacts/NAME/latest            names the version in service; it alone decides
artifacts/NAME/promotions.jsonl  a line each time `latest` moved: memory, never needed to serve
artifacts/NAME/.promoting        what is about to be moved, so that a kill loses no line
artifacts/.NAME.lock             held for the moment in which `latest` moves
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cpu_pipeline.core.errors import RecipeError, Refused, TryAgain
from cpu_pipeline.core.files import hold_lock, remove_tree, write_file, writing
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.release.latest import label, latest, point, require_link
from cpu_pipeline.release.manifest import ASIDE, MANIFEST, edited
from cpu_pipeline.release.promotions import Promotion, append, missing_line, promoted, read_lines


def keep(home: Path, count: int, spare: Collection[str] = ()) -> list[str]:
    """Remove the oldest versions beyond `count`, never the one in service nor those to spare; return their names.

    A version that was edited by hand stays, and so does one that was never promoted.
    """
    removed = []
    with moving(home):
        order = list(dict.fromkeys(move.version for move in reversed(promoted(home))))
        existing = [name for name in order if (home / name).is_dir() and not (home / name).is_symlink()]
        for name in existing[max(count, 1) :]:  # the first is in service
            if name not in spare and not edited(home / name):
                aside = home / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.old"
                (home / name).rename(aside)
                remove_tree(aside)
                removed.append(name)
    sweep(home)  # what an earlier call had set aside when it was killed
    return removed


def sweep(home: Path) -> None:
    """Remove what builds that died left half-done, and versions that were overwritten; not what `latest` names."""
    import psutil

    named = latest(home)
    for path in home.glob(".*.*.*"):
        pid = path.name.split(".")[2]
        done = path.suffix == ".old" or not (pid.isdigit() and psutil.pid_exists(int(pid)))
        if pid.isdigit() and done and path.name != named:
            remove_tree(path)


def rollback(home: Path, version: str | None = None) -> tuple[str | None, str]:
    """Put another version into service: the one before, unless it is named; return what was and what is in service.

    Raises:
        RecipeError: there is no such version, or none before.
        Refused: it is not whole any more, or `latest` is a folder.
    """
    require_link(home)
    order = promoted(home)
    now = label(latest(home))
    existing = versions(home)
    known = f"; there are: {', '.join(existing)}" if existing else "; there is none"
    if version is None:
        before = [
            move.instead_of for move in order if move.version == now and move.by != "rollback" and move.instead_of
        ]
        if not before:
            raise RecipeError(f"{home}: no version was in service before {now or 'any'}; name one{known}")
        version = before[-1]
    if version not in existing:
        raise RecipeError(f"{home}: there is no version {version}{did_you_mean(version, existing)}{known}")
    if changed := edited(home / version):
        raise Refused(
            f"{home / version} is not what was written ({', '.join(changed[:5])}); it is not put into service"
        )
    with moving(home):
        before_it = label(latest(home))
        promote(home, version, "rollback")
    sweep(home)
    return before_it, version


def versions(home: Path) -> list[str]:
    """List the versions in the order in which they were last put into service; others come first."""
    existing = {path.parent.name for path in home.glob(f"*/{MANIFEST}") if not path.parent.is_symlink()}
    existing = {name for name in existing if not name.startswith(".")} - {
        "latest",
        *ASIDE,
    }  # a copy may have made `latest` a folder
    order = [name for name in dict.fromkeys(move.version for move in reversed(promoted(home))) if name in existing]
    return [*sorted(existing - set(order)), *reversed(order)]


@contextlib.contextmanager
def moving(home: Path) -> Iterator[None]:
    """Hold the lock under which `latest` moves, and log a promotion that was killed before it logged itself.

    Raises:
        Refused: `latest` is a folder.
        TryAgain: somebody else holds the lock for long.
    """
    with writing(home.parent), hold_lock(home.parent / f".{home.name}.lock", poll=0.02):
        require_link(home)
        if missing := missing_line(home, read_lines(home)):
            append(home, missing)
        for name in (".promoting", ".promoting.new"):
            (home / name).unlink(missing_ok=True)
        yield


def announce(home: Path, version: str, by: str, reason: str | None = None) -> Promotion | None:
    """Record that `latest` is about to move; the caller holds `moving`.

    Args:
        home: the artifact's directory.
        version: what it will name.
        by: the command.
        reason: why, though --set changed the recipe.

    Returns:
        The promotion; None when `latest` names that version already.
    """
    before = label(latest(home))
    if before == version:
        return None
    when = datetime.now(UTC).isoformat(timespec="seconds")
    intent = Promotion(version, when, by, before, reason)
    write_file(home / ".promoting", json.dumps(intent.line), home / ".promoting.new")
    return intent


def promote(home: Path, version: str, by: str, announced: Promotion | None = None) -> None:
    """Put a whole version into service; the caller holds `moving`.

    Args:
        home: the artifact's directory.
        version: what `latest` will name.
        by: the command.
        announced: what `announce` returned, if it was called.
    """
    if not (home / version).is_dir():
        raise TryAgain(f"{home / version} was removed meanwhile; run the same command again")
    move = announced or announce(home, version, by)
    point(home, version)
    if move is not None:
        append(home, move)
        (home / ".promoting").unlink(missing_ok=True)
