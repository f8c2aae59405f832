"""Who may run on this machine now: everything that does not measure together, a measurement by itself.

The locks are shared by all builds of this user, whatever their store. A measurement that waits holds the door: nothing
new starts anywhere until it had its turn, so that it is not kept waiting for ever by builds that always run something.
"""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path

from filelock import FileLock, ReadWriteLock, Timeout


class MachineLock:
    """One build's share of the machine."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir()) / f"cpu-pipeline-{getpass.getuser()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._machine = ReadWriteLock(folder / "machine.db", is_singleton=False)
        self._door = FileLock(folder / "door.lock")
        self._holds = 0
        self._waits = False

    def enter(self, alone: bool) -> bool:
        """Take the machine for oneself, or beside others that don't measure; False when one has to wait."""
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
                self._waits = True  # and keeps the door until its turn
            else:
                self._door.release()
            return False
        self._door.release(force=True)
        self._holds += 1
        return True

    def leave(self) -> None:
        """Give back what was taken last, if anything is held."""
        if self._holds:
            self._holds -= 1
            self._machine.release()

    def look_round(self) -> None:
        """Let go of the door when nothing has waited since the last look: the measurement found another end."""
        if not self._waits:
            self._door.release(force=True)
        self._waits = False

    def close(self) -> None:
        """Let go of the door, whatever waits."""
        self._door.release(force=True)
