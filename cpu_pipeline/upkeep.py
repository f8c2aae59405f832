"""Looks after a store: what is in it, whether it is whole, and what may go."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from cpu_pipeline import roots
from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.core.files import remove_tree, tree_bytes, writing
from cpu_pipeline.lease import leased
from cpu_pipeline.record import Action, parse_record
from cpu_pipeline.store import Store, intact

DAY = 86_400

Known = dict[Path, tuple[object, Action | None]]
"""Records read already: path -> (what tells whether the file changed, the record)."""


@dataclass(frozen=True)
class Entry:
    """One record of a store, as people want to see it."""

    key: str
    stage: str
    format: str
    object: str
    size: int
    """Bytes of its object."""
    used: float
    """When it was last used, in seconds since 1970."""
    made: float | None
    """When its run ended, in seconds since 1970, if the run said so."""


@dataclass(frozen=True)
class Stat:
    """How much is in a store."""

    records: int
    objects: int
    bytes: int
    """Of all objects."""
    formats: Mapping[str, tuple[int, int]]
    """Format -> (objects, bytes)."""
    leftovers: int
    """Bytes of half-done work, of what was set aside, and of objects that no record refers to."""


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it was written."""

    kind: Literal["damaged", "missing", "unreadable", "unknown"]
    path: Path
    says: str
    mended: bool = False


@dataclass(frozen=True)
class Removal:
    """Something that `gc` removed, or would remove."""

    kind: Literal["record", "object", "work", "scratch", "log", "last", "damaged", "root"]
    path: Path
    bytes: int


def entries(store: Store) -> list[Entry]:
    """List the records, the most recently used first."""
    found = []
    for path, action in _records(store).items():
        if action is not None:
            stage, made = action.ingredients.get("stage"), action.run.get("when")
            made = float(made) if isinstance(made, int | float) else None
            used = _modified(path)
            found.append(Entry(path.stem, str(stage or "?"), action.format, action.object, action.size, used, made))
    return sorted(found, key=lambda entry: (-entry.used, entry.key))


def stat(store: Store) -> Stat:
    """Count records, objects and bytes."""
    actions = [action for action in _records(store).values() if action is not None]
    formats = {action.object: action.format for action in actions}
    per_format: dict[str, tuple[int, int]] = {}
    total = count = 0
    leftovers = sum(tree_bytes(store.root / room) for room in ("work", "scratch", "damaged"))
    for path in _below(store.root / "objects"):
        size = tree_bytes(path)
        count, total = count + 1, total + size
        if (format := formats.get(path.name)) is None:
            leftovers += size
        else:
            had, bytes = per_format.get(format, (0, 0))
            per_format[format] = (had + 1, bytes + size)
    return Stat(len(actions), count, total, dict(sorted(per_format.items())), leftovers)


def verify(store: Store, repair: bool = False) -> list[Problem]:
    """Read every object whole and hold every record against it; return what is wrong.

    `repair` moves damaged objects, records that are unreadable or point nowhere, and unknown files to `damaged/`: what
    they stood for is then built again.
    """
    problems = []
    looks = [partial(_wrong_object, path) for path in _below(store.root / "objects")]
    # Records come last: once a damaged object is gone, its record is found to point nowhere.
    looks += [partial(_wrong_record, store, path) for path in _below(store.root / "actions")]
    for look in looks:
        if (problem := look()) is not None:
            problems.append(_mend(store, problem, look) if repair else problem)
    return problems


def gc(store: Store, keep_days: float = 30, dry_run: bool = False) -> list[Removal]:
    """Remove records not used for `keep_days`, objects without a record, and leftovers.

    What a running build uses stays, and what the locks and versions name that `Store.root_at` was told of.

    Raises:
        TryAgain: Another gc is running; the message says whose.
        RecipeError: One of those can't be read, so nothing is removed.
    """
    if not keep_days >= 0:
        raise RecipeError(f"--keep-days {keep_days} is not a number of days")
    if not store.root.is_dir():
        return []
    with _alone(store):
        known, named = Known(), roots.Known()
        _records(store, known)  # read now, so that little is left to read inside the lock
        roots.read(store, named)
        if dry_run:
            with store.locked():
                living = store.living()
                planned = _plan(store, living, roots.read(store, named), keep_days, known)
                dead = [path for path in (store.root / "work").iterdir() if path.name not in living]
            planned += [Removal("work", path, 0) for path in dead]
            return [replace(each, bytes=tree_bytes(each.path)) for each in planned]
        with leased(store) as lease:
            removed = [Removal("work", store.root / "work", lease.swept)] if lease.swept else []
            with store.locked():
                living = store.living()
                plan = _plan(store, living, roots.read(store, named), keep_days, known)
                moved = [(lease.discard(each.path), each) for each in plan]
                _drop_locks(store, living)
            removed += [replace(each, bytes=remove_tree(place)) for place, each in moved if place is not None]
            return removed


def _plan(store: Store, living: set[str], rooted: roots.Roots, keep_days: float, known: Known) -> list[Removal]:
    """List what may go, records before the objects they name. The caller holds the store's lock."""
    held_keys, held_digests = store.held(living)
    # Objects too: a lock names what came out, which has to stay even where its record is lost.
    held_keys, held_digests = held_keys | rooted.keys, held_digests | rooted.digests

    def old(path: Path) -> bool:
        return time.time() - _modified(path) >= keep_days * DAY  # what seems to come from the future stays

    plan: list[Removal] = []
    kept_keys, kept_digests = set(held_keys), set(held_digests)
    for path, action in _records(store, known).items():
        if path.stem not in held_keys and old(path):
            plan.append(Removal("record", path, 0))
        else:
            kept_keys.add(path.stem)
            kept_digests |= {action.object} if action else set()
    plan += [Removal("object", path, 0) for path in _below(store.root / "objects") if path.name not in kept_digests]
    for path in (store.root / "scratch").iterdir():
        if path.name not in held_keys and old(max(path.rglob("*"), key=_modified, default=path)):
            plan.append(Removal("scratch", path, 0))
    plan += [Removal("log", p, 0) for p in _below(store.root / "logs") if p.stem not in kept_keys and old(p)]
    plan += [Removal("last", path, 0) for path in (store.root / "last").iterdir() if _first_line(path) not in kept_keys]
    plan += [Removal("damaged", path, 0) for path in (store.root / "damaged").iterdir()]
    plan += [Removal("root", path, 0) for path in rooted.gone]
    return plan


def _drop_locks(store: Store, living: set[str]) -> None:
    """Remove the lock files of keys that nobody is building."""
    held, _ = store.held(living)
    for path in _below(store.root / "locks"):
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
        said = json.loads(who.read_text(encoding="utf-8"))
        return f"pid {said['pid']} on {said['host']} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has only just begun"


def _records(store: Store, known: Known | None = None) -> dict[Path, Action | None]:
    """Read every record; None for one that can't be trusted. What `known` has is read again only if it changed."""
    known = {} if known is None else known
    found: dict[Path, Action | None] = {}
    for path in _below(store.root / "actions"):
        with contextlib.suppress(OSError):
            about = path.stat()
            stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
            if path not in known or known[path][0] != stamp:
                known[path] = (stamp, parse_record(path.stem, path.read_bytes()))
            found[path] = known[path][1]
    return found


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _below(room: Path) -> list[Path]:
    """List the entries of a room's shelves (`room/ab/name`)."""
    shelves = sorted(room.iterdir()) if room.is_dir() else []
    return [path for shelf in shelves for path in (sorted(shelf.iterdir()) if shelf.is_dir() else [shelf])]


def _wrong_object(path: Path) -> Problem | None:
    if not re.fullmatch(r"[0-9a-f]{64}", path.name) or path.parent.name != path.name[:2]:
        return Problem("unknown", path, f"{path} is nothing that a store writes")
    if intact(path, path.name) or not os.path.lexists(path):
        return None
    return Problem("damaged", path, f"the object {path} is not what its name says")


def _wrong_record(store: Store, path: Path) -> Problem | None:
    if not re.fullmatch(r"[0-9a-f]{64}\.json", path.name) or path.parent.name != path.name[:2]:
        return Problem("unknown", path, f"{path} is nothing that a store writes")
    if (action := store.action(path.stem)) is None:
        return Problem("unreadable", path, f"the record {path} can't be read") if os.path.lexists(path) else None
    object = store.path_of(action.object)
    if os.path.lexists(object) or store.action(path.stem) != action:  # a gc may be passing by
        return None
    return Problem("missing", path, f"the record {path} points to {object}, which is not there")


def _mend(store: Store, problem: Problem, look: Callable[[], Problem | None]) -> Problem:
    with store.locked():
        if look() is None:  # mended by somebody else meanwhile
            return problem
        store.set_aside(problem.path)
    return replace(problem, mended=True)
