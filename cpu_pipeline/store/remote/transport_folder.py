"""The contract of a transport, which reads and writes files by name, and the one for a local or mounted directory."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cpu_pipeline.core.files import make_dir, sync_dir, writing
from cpu_pipeline.store.remote.urls import Denied, Unreachable

CHUNK = 1 << 20
PATIENCE = 120.0
"""Seconds after which a file must have come at `SLOWEST`: a server that sends a byte now and then never ends."""
SLOWEST = 10_000
"""Bytes a second."""
DAY = 86_400
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}


class Transport(Protocol):
    """Stores files under names with slashes."""

    def read(self, name: str, limit: int, write: Callable[[bytes], object]) -> int | None:
        """Read a file in blocks.

        Args:
            name: the file.
            limit: most bytes to read.
            write: called with each block.

        Returns:
            The bytes of the file, `limit + 1` for a longer one; None for no file.

        Raises:
            Unreachable, Denied: it can't be read.
        """

    def send(self, source: Path | bytes, name: str) -> None:
        """Write a file or some bytes under a name, over what it had.

        Raises:
            Unreachable, Denied: it can't be written.
        """

    def sizes(self, folder: str, names: Iterable[str]) -> dict[str, int]:
        """Map those of these files below a folder that exist to their bytes."""

    def buckets(self, folder: str) -> list[str]:
        """List the files `folder/ab/name` as `ab/name`; none when the folder is not there."""


class FolderTransport:
    """A folder: written whole or not at all, and through to the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"

    def read(self, name: str, limit: int, write: Callable[[bytes], object]) -> int | None:
        """Hand a file to `write`."""
        path, source = self.root / name, None
        with _Reading(self.root):
            if stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                source = path.open("rb")
        if source is None:
            return None
        with source:
            return pump(source, limit, write, _Reading(self.root))

    def send(self, source: Path | bytes, name: str) -> None:
        """Put a file or some bytes there."""
        path, temporary = self.root / name, self.incoming / secrets.token_hex(8)
        with writing(self.root):
            try:
                make_dir(self.incoming)
                self._sweep()
                with temporary.open("wb") as file, _opened(source) as given:
                    shutil.copyfileobj(given, file, CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
                make_dir(path.parent)
                temporary.replace(path)
                sync_dir(path.parent)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise Denied(
                    f"{self.root} can't be written: {error.strerror}: {error.filename} is in the way"
                ) from error
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink()

    def sizes(self, folder: str, names: Iterable[str]) -> dict[str, int]:
        """Say how many bytes these files have."""
        found = {}
        for name in names:
            with _Reading(self.root):
                about = (self.root / folder / name).stat()
                if stat.S_ISREG(about.st_mode):
                    found[name] = about.st_size
        return found

    def buckets(self, folder: str) -> list[str]:
        """List the files of a folder."""
        buckets, found = list[Path](), list[str]()
        with _Reading(self.root):
            buckets = sorted((self.root / folder).iterdir())
        for bucket in buckets:
            with _Reading(self.root):
                found += [f"{bucket.name}/{path.name}" for path in bucket.iterdir()]
        return found

    def _sweep(self) -> None:
        """Remove what those that died a day ago or earlier left half-written."""
        for path in self.incoming.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > DAY:
                    path.unlink()


class _Reading:
    """Passes over what is not there in a folder; that it can't be read is our error."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, OSError):
            return False
        if isinstance(error, PermissionError):
            raise Denied(f"{self.root} can't be read: {error.strerror}: {error.filename}") from error
        if error.errno not in ABSENT:
            raise Unreachable(f"{self.root} can't be read: {error.strerror}; try again later") from error
        return True


def _opened(source: Path | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def pump(source: Any, limit: int, write: Callable[[bytes], object], asking: Any) -> int:
    """Copy a stream in blocks.

    Args:
        source: has `read`.
        limit: most bytes to copy.
        write: called with each block.
        asking: a context for reading alone, which turns the source's errors into ours.

    Returns:
        The bytes of the source, `limit + 1` for a longer one.

    Raises:
        Unreachable: as `asking` has it; the source takes for ever.
    """
    had, begin = 0, time.monotonic()
    while had <= limit:
        block = b""
        with asking:
            block = source.read(min(CHUNK, limit + 1 - had))
            taken = time.monotonic() - begin
            if block and taken > PATIENCE and had + len(block) < taken * SLOWEST:
                raise TimeoutError(f"{had + len(block):,} bytes in {taken:.0f} seconds")
        if not block:
            break
        had += len(block)
        if had <= limit:
            write(block)
    return had
