"""Remove from a store what is not needed any more; never what a build uses or a lock or published version names."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.core.files import UnchangedFiles, remove_tree, tree_bytes, writing
from cpu_pipeline.store.contents import below, modified, read_record, records
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import Action

DAY = 86_400


@dataclass(frozen=True)
class Removal:
    """Something that `gc` removed, or would remove."""

    kind: Literal["record", "object", "work", "scratch", "log", "last", "damaged", "root"]
    """What it is."""
    path: Path
    """The file or directory."""
    bytes: int
    """Its size in bytes."""


@dataclass
class Roots:
    """What the roots of a store name: it stays, however old it is."""

    paths: list[Path] = field(default_factory=list)
    """Locks and directories of versions that exist."""
    gone: list[Path] = field(default_factory=list)
    """Files in `roots/` whose lock or directory does not exist any more."""
    keys: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)


def collect(
    store: Store, read_roots: Callable[[], Roots], keep_days: float = 30, *, dry_run: bool = False
) -> list[Removal]:
    """Remove records not used for `keep_days`, objects without a record, and leftovers.

    What a running build uses stays, and what the roots name.

    Args:
        store: the store.
        read_roots: reads the roots; called again while the store is locked.
        keep_days: age in days from which a record that nothing names may go.
        dry_run: return what would be removed, and remove nothing.

    Raises:
        TryAgain: another gc is running; the message names its process.
        RecipeError: A root can't be read, so nothing is removed.
    """
    if not keep_days >= 0:
        raise RecipeError(f"--keep-days {keep_days} is not a number of days")
    if not store.root.is_dir():
        return []
    with _alone(store):
        known = UnchangedFiles(read_record)
        records(store, known)  # read now, so that little is left to read inside the lock
        read_roots()
        if dry_run:
            with store.locked():
                living = store.living()
                planned = _plan(store, living, read_roots(), keep_days, known)
                dead = [path for path in (store.root / "work").iterdir() if path.name not in living]
            planned += [Removal("work", path, 0) for path in dead]
            return [replace(each, bytes=tree_bytes(each.path)) for each in planned]
        with leased(store) as lease:
            removed = [Removal("work", store.root / "work", lease.swept)] if lease.swept else []
            with store.locked():
                living = store.living()
                plan = _plan(store, living, read_roots(), keep_days, known)
                moved = [(lease.discard(each.path), each) for each in plan]
                _drop_locks(store, living)
            removed += [replace(each, bytes=remove_tree(trashed)) for trashed, each in moved if trashed is not None]
            return removed


def _plan(
    store: Store, living: set[str], rooted: Roots, keep_days: float, known: UnchangedFiles[Action | None]
) -> list[Removal]:
    """List what may go, records before the objects they name. The caller holds the store's lock."""
    held_keys, held_digests = store.held(living)
    # Objects too: a lock names what came out, which has to stay even where its record is lost.
    held_keys, held_digests = held_keys | rooted.keys, held_digests | rooted.digests

    def old(path: Path) -> bool:
        return time.time() - modified(path) >= keep_days * DAY  # what seems to come from the future stays

    plan: list[Removal] = []
    kept_keys, kept_digests = set(held_keys), set(held_digests)
    for path, action in records(store, known).items():
        if path.stem not in held_keys and old(path):
            plan.append(Removal("record", path, 0))
        else:
            kept_keys.add(path.stem)
            kept_digests |= {action.object} if action else set()
    plan += [Removal("object", path, 0) for path in below(store.root / "objects") if path.name not in kept_digests]
    for path in (store.root / "scratch").iterdir():
        if path.name not in held_keys and old(max(path.rglob("*"), key=modified, default=path)):
            plan.append(Removal("scratch", path, 0))
    plan += [Removal("log", p, 0) for p in below(store.root / "logs") if p.stem not in kept_keys and old(p)]
    plan += [Removal("last", path, 0) for path in (store.root / "last").iterdir() if _first_line(path) not in kept_keys]
    plan += [Removal("damaged", path, 0) for path in (store.root / "damaged").iterdir()]
    plan += [Removal("root", path, 0) for path in rooted.gone]
    return plan


def _drop_locks(store: Store, living: set[str]) -> None:
    """Remove the lock files of keys that nobody is building."""
    held, _ = store.held(living)
    for path in below(store.root / "locks"):
        if path.stem not in held:
            with contextlib.suppress(OSError), FileLock(path, timeout=0):
                path.unlink()


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    store.prepare()
    lock, who = FileLock(store.root / "gc.lock", timeout=0), store.root / "gc.json"
    with writing(store.root):
        try:
            lock.acquire()
        except Timeout:
            raise TryAgain(f"{store.root}: another gc is at work ({_holder(who)}); try again when it is done") from None
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            who.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}), encoding="utf-8")
            yield
        finally:
            who.unlink(missing_ok=True)
            lock.release()


def _holder(who: Path) -> str:
    try:
        holder = json.loads(who.read_text(encoding="utf-8"))
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has only just begun"


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
