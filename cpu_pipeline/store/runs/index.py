"""An index over the runs of a store, in SQLite (WAL): it saves reading every run.json, and its loss changes nothing.

The folders are the truth. A row counts only as long as its run.json has the size and time that it was read with, and
the row has its own digest; whatever is missing, damaged, locked or of another format is read from the folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.core.errors import PipelineError, RecipeError, TryAgain
from cpu_pipeline.core.files import writing
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.reader import FOLDER, RUN, RunEntry, folders, read_entry

NAME = "runs.sqlite"
INDEX_FORMAT = 3
"""Raise when a row changes its shape; an index of another format is rebuilt."""
PATIENCE = 0.5
"""Seconds to wait for who writes just now."""
_SHAPE = "CREATE TABLE runs (id TEXT PRIMARY KEY, stamp TEXT NOT NULL, entry TEXT NOT NULL, digest TEXT NOT NULL)"

Row = tuple[str, str, str, str]


def entries(store: Store) -> Iterator[RunEntry]:
    """Give every run, newest first: from the index where it is right, else from its folder; mend the index."""
    existing = folders(store)
    known, whole = _read(store)
    fresh = []
    for name in existing:
        stamp = _stamp(store, name)
        if stamp and (row := known.get(name)) is not None and row[0] == stamp:
            yield row[1]
        elif (entry := read_entry(store, name)) is not None:
            yield entry
            if stamp:  # what still runs, or died, has no end that could be kept
                fresh.append(_row(stamp, entry))
    gone = known.keys() - set(existing)
    if not existing or not (fresh or gone or not whole):
        return
    if whole:
        _write(store, fresh, gone)
    else:
        with contextlib.suppress(PipelineError, OSError):
            rebuild(store)


def add(store: Store, name: str) -> None:
    """Add a run that has just ended; what keeps that from happening is mended by who reads."""
    entry = read_entry(store, name)
    if entry is not None and (stamp := _stamp(store, name)):
        _write(store, [_row(stamp, entry)], ())


def rebuild(store: Store) -> int:
    """Rebuild the index from the directories; return how many runs it holds.

    Raises:
        RecipeError: there is something in the way that is no index.
        TryAgain: somebody else writes it, or the disk is full.
    """
    path = store.root / NAME
    if path.is_dir():
        raise RecipeError(f"{path} is a directory; move it away")
    found = []
    for name in folders(store):
        if (stamp := _stamp(store, name)) and (entry := read_entry(store, name)) is not None:
            found.append(_row(stamp, entry))
    if not found and not store.root.is_dir():
        return 0
    try:
        _put(path, found, (), anew=True)
    except sqlite3.DatabaseError as error:
        if _locked(error):
            raise TryAgain(f"{path} is held by another process; try again") from error
        _replace(store, found)
    return len(found)


def _replace(store: Store, rows: Sequence[Row]) -> None:
    """Put a new index in the place of one that is damaged."""
    path = store.root / NAME
    fresh = path.with_name(f"{NAME}.{secrets.token_hex(4)}")
    try:
        with writing(store.root):
            try:
                _put(fresh, rows, ())
            except sqlite3.Error as error:
                raise RecipeError(f"{path} can't be written: {error}") from error
            # A log that belongs to what is replaced must not be taken for the new one's.
            for rest in ("-wal", "-shm"):
                path.with_name(NAME + rest).unlink(missing_ok=True)
            fresh.replace(path)
    finally:
        for rest in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                fresh.with_name(fresh.name + rest).unlink(missing_ok=True)


def _stamp(store: Store, name: str) -> str:
    """Return a stamp that changes with a run.json; empty when there is none."""
    try:
        about = os.stat(store.root / FOLDER / name / RUN)  # noqa: PTH116  # three times as quick as Path's, of which thousands are made
    except OSError:
        return ""
    return f"{about.st_size}.{about.st_mtime_ns}"


def _row(stamp: str, entry: RunEntry) -> Row:
    fields = asdict(entry)
    return entry.id, stamp, json.dumps(fields), digest_json([stamp, fields])


def _read(store: Store) -> tuple[Mapping[str, tuple[str, RunEntry]], bool]:
    """Return what the index knows: id -> (stamp, entry), and whether it is one that can be added to."""
    path = store.root / NAME
    if not path.is_file():
        return {}, False
    known = {}
    try:
        with _opened(path) as index:
            if index.execute("PRAGMA user_version").fetchone() != (INDEX_FORMAT,):
                return {}, False
            for name, stamp, text, digest in index.execute("SELECT id, stamp, entry, digest FROM runs"):
                fields = json.loads(text)
                if digest_json([stamp, fields]) != digest:
                    return {}, False
                known[name] = stamp, RunEntry(**fields)
    except sqlite3.DatabaseError as error:
        return {}, _locked(error)
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}, False
    return known, True


def _write(store: Store, rows: Iterable[Row], gone: Iterable[str]) -> None:
    with contextlib.suppress(sqlite3.Error, OSError):
        _put(store.root / NAME, rows, gone)


def _locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _put(path: Path, rows: Iterable[Row], gone: Iterable[str], anew: bool = False) -> None:
    with _opened(path) as index:
        index.execute("PRAGMA journal_mode=WAL")
        index.execute("PRAGMA synchronous=NORMAL")
        with index:
            index.execute("BEGIN IMMEDIATE")
            if anew:
                index.execute("DROP TABLE IF EXISTS runs")
            if index.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchone() is None:
                index.execute(_SHAPE)
                index.execute(f"PRAGMA user_version={INDEX_FORMAT}")
            index.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", rows)
            index.executemany("DELETE FROM runs WHERE id = ?", [(name,) for name in gone])


def _opened(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None))
