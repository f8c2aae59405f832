"""List, count and verify what is in a store."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from cpu_pipeline.core.artifact import DIGEST
from cpu_pipeline.core.files import tree_bytes
from cpu_pipeline.store.local import Store, intact
from cpu_pipeline.store.record import Action, parse_record


@dataclass(frozen=True)
class StoredRecord:
    """One record of a store, for people."""

    key: str
    """Key of the step: a digest of everything it depends on."""
    stage: str
    """Its stage."""
    format: str
    """Format of its artifact."""
    object: str
    """Digest of its artifact."""
    size: int
    """Bytes of its object."""
    used: float
    """When it was last used, in seconds since 1970."""
    made: float | None
    """When its run ended, in seconds since 1970; None when it is not recorded."""


@dataclass(frozen=True)
class Stat:
    """How much is in a store."""

    records: int
    """Number of records, one for each cached step."""
    objects: int
    """Number of artifacts; equal ones are stored once."""
    bytes: int
    """Of all objects."""
    formats: Mapping[str, tuple[int, int]]
    """Format -> (objects, bytes)."""
    leftovers: int
    """Bytes of half-done work, of what was set aside, and of objects that no record refers to."""


@dataclass(frozen=True)
class StoreProblem:
    """Something in a store that is not as it was written."""

    kind: Literal["damaged", "missing", "unreadable", "unknown"]
    """What is wrong."""
    path: Path
    """The file or directory."""
    says: str
    """Message for people."""
    mended: bool = False
    """Whether `--repair` mended it."""


def entries(store: Store) -> list[StoredRecord]:
    """List the records, the most recently used first."""
    found = []
    for path, action in records(store).items():
        if action is not None:
            stage, finished = action.ingredients.get("stage"), action.run.get("when")
            finished = float(finished) if isinstance(finished, int | float) else None
            used = modified(path)
            found.append(
                StoredRecord(path.stem, str(stage or "?"), action.format, action.object, action.size, used, finished)
            )
    return sorted(found, key=lambda entry: (-entry.used, entry.key))


def stat(store: Store) -> Stat:
    """Count records, objects and bytes."""
    actions = [action for action in records(store).values() if action is not None]
    formats = {action.object: action.format for action in actions}
    per_format: dict[str, tuple[int, int]] = {}
    total = count = 0
    leftovers = sum(tree_bytes(store.root / name) for name in ("work", "scratch", "damaged"))
    for path in below(store.root / "objects"):
        size = tree_bytes(path)
        count, total = count + 1, total + size
        if (format := formats.get(path.name)) is None:
            leftovers += size
        else:
            had, bytes = per_format.get(format, (0, 0))
            per_format[format] = (had + 1, bytes + size)
    return Stat(len(actions), count, total, dict(sorted(per_format.items())), leftovers)


def verify(store: Store, repair: bool = False) -> list[StoreProblem]:
    """Read every object whole and compare every record with it; return what is wrong.

    `repair` moves damaged objects, records that are unreadable or point nowhere, and unknown files to `damaged/`: what
    they stood for is then built again.
    """
    problems = []
    looks = [partial(_wrong_object, path) for path in below(store.root / "objects")]
    # Records come last: once a damaged object is gone, its record is found to point nowhere.
    looks += [partial(_wrong_record, store, path) for path in below(store.root / "actions")]
    for look in looks:
        if (problem := look()) is not None:
            problems.append(_mend(store, problem, look) if repair else problem)
    return problems


def read_record(path: Path) -> Action | None:
    """Read the record in a file; None for one that can't be trusted."""
    return parse_record(path.stem, path.read_bytes())


def records(store: Store, read: Callable[[Path], Action | None] = read_record) -> dict[Path, Action | None]:
    """Read every record of a store; None for one that can't be trusted.

    Args:
        store: the store.
        read: reads one file, such as `UnchangedFiles(read_record)` where records are read twice.
    """
    found: dict[Path, Action | None] = {}
    for path in below(store.root / "actions"):
        with contextlib.suppress(OSError):
            found[path] = read(path)
    return found


def modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def below(folder: Path) -> list[Path]:
    """List the entries of a directory of buckets (`folder/ab/name`)."""
    buckets = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for bucket in buckets for path in (sorted(bucket.iterdir()) if bucket.is_dir() else [bucket])]


def _wrong_object(path: Path) -> StoreProblem | None:
    if not DIGEST.fullmatch(path.name) or path.parent.name != path.name[:2]:
        return StoreProblem("unknown", path, f"{path} is nothing that a store writes")
    if intact(path, path.name) or not os.path.lexists(path):
        return None
    return StoreProblem("damaged", path, f"the object {path} is not what its name says")


def _wrong_record(store: Store, path: Path) -> StoreProblem | None:
    if not DIGEST.fullmatch(path.stem) or path.suffix != ".json" or path.parent.name != path.name[:2]:
        return StoreProblem("unknown", path, f"{path} is nothing that a store writes")
    if (action := store.action(path.stem)) is None:
        return StoreProblem("unreadable", path, f"the record {path} can't be read") if os.path.lexists(path) else None
    object = store.path_of(action.object)
    if os.path.lexists(object) or store.action(path.stem) != action:  # a gc may be passing by
        return None
    return StoreProblem("missing", path, f"the record {path} points to {object}, which is not there")


def _mend(store: Store, problem: StoreProblem, look: Callable[[], StoreProblem | None]) -> StoreProblem:
    with store.locked():
        if look() is None:  # mended by somebody else meanwhile
            return problem
        store.set_aside(problem.path)
    return replace(problem, mended=True)
