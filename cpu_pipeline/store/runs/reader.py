"""The runs that a store recorded: the outcome of each, and whether one without an end still runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cpu_pipeline.core.errors import RecipeError, newer_format
from cpu_pipeline.store.local import Store

RUN_FORMAT = 1
FOLDER, RUN, EVENTS, LOCK = "runs", "run.json", "events.jsonl", "alive.lock"
INTERRUPTED = (129, 130, 143)
"""Exit codes of the signals that end a command."""
_ID = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}")

RunState = Literal["done", "failed", "interrupted", "died", "running", "unreadable"]


@dataclass(frozen=True)
class RunEntry:
    """One run, in short."""

    id: str
    """When it began, with a random part."""
    command: str
    """The command of cpu-pipeline."""
    name: str
    """Name of the recipe or artifact."""
    recipe: str | None
    """Its file, as it was given."""
    place: str | None
    """Its file, from the root of the file system."""
    out: str | None
    """The folder of artifacts, from there too."""
    started: str
    """UTC, as ISO 8601 has it."""
    finished: str | None
    """UTC, ISO 8601; None while it runs and when it died."""
    outcome: RunState
    """How it ended, or that it is running."""
    exit_code: int | None
    """Its exit code; None while it runs and when it died."""
    version: str | None
    """The version that it published, or left in service."""
    puts_out: bool
    """False for a run that publishes nothing (`--until`), and for a lock."""
    partial: bool
    """True when there were changes that it was not to react to (`--only`)."""
    says: str
    """The first line of its error."""
    report: str | None = None
    """Directory of the report on the gates that failed, where one was written."""


def folders(store: Store) -> list[str]:
    """Name the folders of runs, newest first."""
    try:
        with os.scandir(store.root / FOLDER) as entries:
            return sorted((entry.name for entry in entries if _ID.fullmatch(entry.name)), reverse=True)
    except OSError:
        return []


def find_run(store: Store, begin: str) -> Path:
    """Return the folder of the run whose id begins so.

    Raises:
        RecipeError: none does, or more than one.
    """
    found = [name for name in folders(store) if name.startswith(begin)]
    if len(found) != 1 or not begin:
        message = f"{len(found)} runs begin so: {', '.join(found[:5])}" if found else "no run begins so"
        raise RecipeError(f"{begin}: {message}; `cpu-pipeline history` lists them")
    return store.root / FOLDER / found[0]


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read a run.json; None when it is not there, or not whole.

    Raises:
        RecipeError: it was written by a newer version.
    """
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("run"), int):
        return None
    if record["run"] > RUN_FORMAT:
        raise newer_format(folder / RUN, record["run"], RUN_FORMAT)
    return record


def read_entry(store: Store, name: str) -> RunEntry | None:
    """Return the outcome of a run; None for a directory in which nothing began."""
    folder = store.root / FOLDER / name
    for again in (True, False):
        if (folder / RUN).exists():
            try:
                return _ended(name, read_run(folder))
            except RecipeError as error:
                return _entry(name, {}, "unreadable", str(error))
        if again and _alive(folder):
            return _entry(name, _head(folder), "running", "") if _head(folder) else None
    return _entry(name, _head(folder), "died", "killed, or the machine went down") if _head(folder) else None


def _ended(name: str, record: Mapping[str, Any] | None) -> RunEntry:
    if record is None:
        return _entry(name, {}, "unreadable", f"its {RUN} can't be read")
    code = record.get("exit_code")
    outcome: RunState = "done" if code == 0 else "interrupted" if code in INTERRUPTED else "failed"
    error = record.get("error")
    message = str((error if isinstance(error, Mapping) else record).get("says", "")) if code != 0 else ""
    return _entry(name, record, outcome, message.strip().partition("\n")[0])


def _entry(name: str, record: Mapping[str, Any], outcome: RunState, message: str) -> RunEntry:
    def text(key: str) -> str | None:
        return found if isinstance(found := record.get(key), str) else None

    code = record.get("exit_code")
    return RunEntry(
        name,
        text("command") or "?",
        text("name") or "?",
        text("recipe"),
        text("place"),
        text("out"),
        text("started") or began(name),
        text("finished"),
        outcome,
        code if isinstance(code, int) else None,
        text("version"),
        bool(record.get("puts_out", record.get("command") != "lock")),
        bool(refresh.get("ignored")) if isinstance(refresh := record.get("refresh"), Mapping) else False,
        message,
        text("report"),
    )


def began(name: str) -> str:
    """Read the time that an id begins with: UTC, ISO 8601."""
    day, clock = name[:8], name[9:15]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}.{name[16:19]}+00:00"


def _head(folder: Path) -> dict[str, Any]:
    """Read what began; nothing when its line was never whole."""
    try:
        with (folder / EVENTS).open(encoding="utf-8", errors="replace") as file:
            record = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _alive(folder: Path) -> bool:
    """Say whether somebody holds the lock of a run, on this machine or on another that shares the disk."""
    if not (folder / LOCK).exists():
        return False
    probe = FileLock(folder / LOCK, timeout=0)
    try:
        probe.acquire()
    except Timeout:
        return True
    except OSError:  # not ours to ask: it is there, and whoever ends takes it away
        return True
    probe.release()
    return False
