"""The history: a directory for each run, with its outcome and every event.

runs/<id>/run.json      request and outcome; written last, whole or not at all
runs/<id>/events.jsonl  a line for every event, as it happens; the first is the beginning
runs/<id>/alive.lock    held by the system for as long as the run lives

A run without run.json died, or still runs. Ids sort by time. `index.py` is quicker at many runs, and never needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from filelock import FileLock

from cpu_pipeline.core.errors import BUG, PipelineError, TryAgain, interruption
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.core.files import make_dir, write_file, writing
from cpu_pipeline.core.redaction import SECRET, userinfo
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.reader import EVENTS, FOLDER, LOCK, RUN, RUN_FORMAT, RunEntry

__all__ = ["RunEntry", "RunRecorder", "recording", "runs"]

_ADDRESS = re.compile(r"(?<=\w://)\S+")
"""What follows the protocol of an address: perhaps a user and a password first."""


def recording(
    store: Store,
    command: str,
    name: str,
    recipe: Path | None,
    tell: Tell = lambda _: None,
) -> RunRecorder:
    """Record what happens inside, below `<store>/runs/`; to be used as a context.

    Args:
        store: holds the record.
        command: run, lock, refresh or rollback.
        name: the recipe's, which is the artifact's too.
        recipe: its file, as it was given; None where there is none.
        tell: called with a warning when the record is lost.

    Raises:
        TryAgain: the disk is full, before anything began or when the last line is to be written. Whatever else keeps a
            record from being written is left to `Run.lost`: it makes no good build a failed one.
    """
    return RunRecorder(store, command, name, recipe, tell)


def runs(store: Store, name: str | None = None) -> list[RunEntry]:
    """List the runs, newest first; of one artifact if it is named."""
    from cpu_pipeline.store.runs import index

    return [entry for entry in index.entries(store) if name is None or entry.name == name]


class RunRecorder:
    """One run that is being recorded."""

    def __init__(self, store: Store, command: str, name: str, recipe: Path | None, tell: Tell) -> None:
        now = datetime.now(UTC)
        self.id = f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(3)}"
        self.command = command
        self.folder = store.root / FOLDER / self.id
        self.lost = ""
        """Why there is no record, or not a whole one."""
        self._store, self._warn = store, tell
        self._began = time.monotonic()
        self._said: dict[str, Any] = {
            "run": RUN_FORMAT,
            "id": self.id,
            "command": command,
            "name": name,
            "recipe": None if recipe is None else str(recipe),
            **({} if recipe is None else {"place": str(recipe.absolute())}),
            "started": _iso(now),
        }
        self._noted: dict[str, Any] = {}
        self._lock: FileLock | None = None
        self._events: TextIO | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except TryAgain:
            self._close()
            raise
        except (PipelineError, OSError) as error:
            self._lose(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._lock is None:
            return
        ended = datetime.now(UTC)
        seconds = round(time.monotonic() - self._began, 3)
        noted = {key: value for key, value in self._noted.items() if key not in self._said}
        if error is not None:
            noted.pop("exit_code", None)
        record = {**self._said, "finished": _iso(ended), "seconds": seconds, **_outcome(error), **noted}
        text = json.dumps(_clean(record), indent=1, ensure_ascii=False, default=str) + "\n"
        try:
            with writing(self._store.root):
                write_file(self.folder / RUN, text, self.folder / f"{RUN}.part")
        except (PipelineError, OSError) as failed:
            self._lose(failed)
            if isinstance(failed, TryAgain) and error is None:
                raise
        finally:
            self._close()
        if not self.lost:
            from cpu_pipeline.store.runs import index

            index.add(self._store, self.id)

    def tell(self, event: Event) -> None:
        """Append an event, at once."""
        if self._events is None or event.what == "progress":  # of which there may be thousands
            return
        fields: dict[str, Any] = {
            "at": round(time.monotonic() - self._began, 3),
            "node": event.node,
            "what": event.what,
        }
        if event.why:
            fields["why"] = list(event.why)
        if event.seconds:
            fields["seconds"] = round(event.seconds, 3)
        try:
            self._events.write(_line(fields))
        except OSError as error:  # run.json will say what it came to; if the disk is still full then, that fails
            self.note(events=f"incomplete: {error.strerror}")
            self._end_events()

    def note(self, **facts: Any) -> None:
        """Add facts to what run.json will say; `exit_code` is that of a command that ends without an error."""
        self._noted |= facts

    def _open(self) -> None:
        self._store.prepare()
        with writing(self._store.root):
            make_dir(self.folder.parent)
            self.folder.mkdir()
            # Who looks whether a run lives holds its lock for a moment.
            self._lock = FileLock(self.folder / LOCK, timeout=10, poll_interval=0.01, thread_local=False)
            self._lock.acquire()
            # Line by line, and without a process of ours in between: what was reported survives a kill.
            self._events = (self.folder / EVENTS).open("w", encoding="utf-8", newline="\n", buffering=1)
            self._events.write(_line({"at": 0.0, "what": "began", **self._said, "pid": os.getpid()}))

    def _lose(self, error: BaseException) -> None:
        self.lost = str(error)
        self._close()
        self._warn(Event("history", "warning", (f"this run is not recorded: {self.lost}",)))

    def _end_events(self) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()
            self._events = None

    def _close(self) -> None:
        self._end_events()
        if self._lock is not None:
            with contextlib.suppress(OSError):  # where a file that is open can't go, it stays, and nobody holds it
                Path(self._lock.lock_file).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._lock.release()
            self._lock = None


def _outcome(error: BaseException | None) -> dict[str, Any]:
    """Say how it ended, as the command's exit code will."""
    match error:
        case None:
            return {"exit_code": 0, "error": None}
        case KeyboardInterrupt():
            return _outcome(interruption(error, "interrupted"))
        case PipelineError():
            return {"exit_code": error.exit_code, "error": {"name": type(error).__name__, "says": str(error)}}
        case _:
            return {"exit_code": BUG, "error": {"name": type(error).__name__, "says": str(error)}}


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(_clean(fields), ensure_ascii=False, default=str) + "\n"


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds")


def _clean(value: Any) -> Any:
    """Take out what is secret: users of addresses, and what variables of the environment hold that are named so.

    Bytes of names that are not UTF-8, which Python reads as lone surrogates, are written as escapes.
    """
    hidden = [v for name, v in os.environ.items() if SECRET.search(name) and len(v) > 7]

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for secret in hidden:
                value = value.replace(secret, "***")
            return _ADDRESS.sub(_without_user, value).encode("utf-8", "backslashreplace").decode()
        if isinstance(value, Mapping):
            return {str(clean(key)): clean(part) for key, part in value.items()}
        return [clean(part) for part in value] if isinstance(value, list | tuple) else value

    return clean(value)


def _without_user(found: re.Match[str]) -> str:
    user = userinfo(found[0])
    return f"***{found[0][len(user) :]}" if user else found[0]
