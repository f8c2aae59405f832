"""A lock of the whole machine: a measurement runs alone, other steps run at once.

It is a readers-writer lock shared by all builds of this user, whatever their store: a measurement writes, other steps
read. A measurement that waits holds a second lock, the door: until it ran no other step starts, so that builds which
always run something cannot starve it. Beside the locks, who holds the machine says so, for the messages of who waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, ReadWriteLock, Timeout

from cpu_pipeline.core.errors import TryAgain
from cpu_pipeline.engine.machine_folder import set_aside

KIND = ".hold.json"
_BROKEN = (sqlite3.Error, OSError, ValueError)
"""What a damaged file of the lock raises, or something else in its place; so does `Timeout`, which is an OSError."""


@dataclass(frozen=True)
class Hold:
    """Who holds the machine."""

    pid: int
    step: str
    """Recipe and step."""
    alone: bool
    """Whether it measures, or keeps a measurement waiting."""
    since: float
    """Seconds since 1970."""

    def __str__(self) -> str:
        """Say it for people."""
        what = "measures" if self.alone else "builds"
        return f"pid {self.pid} {what} {self.step} since {time.strftime('%H:%M:%S', time.localtime(self.since))}"


class MachineLock:
    """One build's holds of the lock.

    Args:
        folder: a directory of this user alone (see `machine_folder`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machine = self._open()
        self._door = FileLock(folder / "door.lock")
        self._holds: list[tuple[str, Path]] = []
        """Step -> the note about it."""
        self._waits = False

    def enter(self, alone: bool, step: str = "a step") -> bool:
        """Acquire the machine, alone or beside other steps that do not measure; return False when it is not free.

        Args:
            alone: True for a measurement.
            step: recipe and step, for the messages of others that wait.
        """
        if self._door.is_locked and not alone:
            return False  # a measurement of this build waits
        try:
            self._healed(self._enter_door)
        except Timeout:
            return False
        try:
            self._healed(lambda: self._acquire(alone))
        except Timeout:
            if alone:
                self._waits = True  # and holds the door until it ran
            else:
                self._door.release()
            return False
        self._door.release(force=True)
        self._holds.append((step, self._note(Hold(os.getpid(), step, alone, time.time()))))
        return True

    def _enter_door(self) -> None:
        self._door.acquire(timeout=0)

    def _acquire(self, alone: bool) -> None:
        if alone:
            self._machine.acquire_write(timeout=0, blocking=False)
        else:
            self._machine.acquire_read(timeout=0, blocking=False)

    def _open(self) -> ReadWriteLock:
        path = self._folder / "machine.db"
        try:
            return ReadWriteLock(path, is_singleton=False)
        except _BROKEN:
            self._set_aside()
            return ReadWriteLock(path, is_singleton=False)

    def _set_aside(self) -> None:
        """Set files of the lock aside that are damaged; while this build holds the machine by them they are not."""
        for name in ("machine.db", "machine.db-journal", "machine.db-wal", "machine.db-shm"):
            set_aside(self._folder / name)
        if not (self._folder / "door.lock").is_file():
            set_aside(self._folder / "door.lock")

    def _healed(self, take: Callable[[], None]) -> None:
        """Take a lock; if its file is damaged, set it aside and take it once more.

        Raises:
            Timeout: somebody else holds it.
            TryAgain: it can't be taken; names the directory.
        """
        try:
            take()
            return
        except Timeout:
            raise
        except _BROKEN:
            if not self._holds:
                with contextlib.suppress(*_BROKEN):
                    self._machine.close()
                self._set_aside()
        try:
            if not self._holds:
                self._machine = self._open()
            take()
        except Timeout:
            raise
        except _BROKEN as error:
            self._door.release(force=True)
            raise TryAgain(f"{self._folder}: the lock of this machine can't be taken ({error}); remove it") from error

    def leave(self, step: str = "a step") -> None:
        """Release the hold of a step, if there is any."""
        held = next((hold for hold in self._holds if hold[0] == step), None)
        if held is not None:
            self._holds.remove(held)
            self._forget(held[1])
            with contextlib.suppress(sqlite3.Error, RuntimeError):  # its file is gone or damaged: nobody is kept out
                self._machine.release()

    def holders(self) -> list[Hold]:
        """List who holds the machine now, but for this process: measurements first."""
        found = [hold for hold in self._read() if hold.pid != os.getpid()]
        return sorted(found, key=lambda hold: (not hold.alone, hold.since))

    def release_unused_door(self) -> None:
        """Release the door if no measurement has waited since the last call: the one that did was skipped or failed."""
        if not self._waits:
            self._door.release(force=True)
        self._waits = False

    def close(self) -> None:
        """Release the door, though a measurement may wait."""
        self._door.release(force=True)

    def _note(self, hold: Hold) -> Path:
        """Write who holds it; the lock holds, too, where that can't be written."""
        path = self._folder / f"{hold.pid}.{secrets.token_hex(4)}{KIND}"
        with contextlib.suppress(OSError):
            path.write_text(json.dumps(asdict(hold)), encoding="utf-8")
        return path

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _read(self) -> Iterator[Hold]:
        """Read the notes of living processes; remove those of dead ones."""
        for path in self._folder.glob(f"*{KIND}"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                hold = Hold(**json.loads(path.read_text(encoding="utf-8")))
                if psutil.pid_exists(hold.pid):
                    yield hold
                else:
                    self._forget(path)
