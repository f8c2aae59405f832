"""A lock of the whole machine: a measurement runs alone, other steps run at once.

It is a readers-writer lock shared by all builds of this user, whatever their store: a measurement writes, other steps
read. A measurement that waits holds a second lock, the door: until it ran no other step starts, so that builds which
always run something cannot starve it.
"""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout


class MachineLock:
    """One build's holds of the lock."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir()) / f"cpu-pipeline-{getpass.getuser()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._machine = ReadWriteLock(folder / "machine.db", is_singleton=False)
        self._door = FileLock(folder / "door.lock")
        self._holds = 0
        self._waits = False

    def enter(self, alone: bool) -> bool:
        """Acquire the machine, alone or beside other steps that do not measure; return False when it is not free."""
        if self._door.is_locked and not alone:
            return False  # a measurement of this build waits
        try:
            self._door.acquire(timeout=0)
        except Timeout:
            return False
        try:
            if alone:
                self._machine.acquire_write(timeout=0, blocking=False)
            else:
                self._machine.acquire_read(timeout=0, blocking=False)
        except Timeout:
            if alone:
                self._waits = True  # and holds the door until it ran
            else:
                self._door.release()
            return False
        self._door.release(force=True)
        self._holds += 1
        return True

    def leave(self) -> None:
        """Release the last hold, if there is any."""
        if self._holds:
            self._holds -= 1
            self._machine.release()

    def release_unused_door(self) -> None:
        """Release the door if no measurement has waited since the last call: the one that did was skipped or failed."""
        if not self._waits:
            self._door.release(force=True)
        self._waits = False

    def close(self) -> None:
        """Release the door, though a measurement may wait."""
        self._door.release(force=True)
