"""Write files so that a crash or a full disk leaves no partial file; turn disk errors into clear messages."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Literal, TypeVar

from cpu_pipeline.core.errors import PipelineError, RecipeError, StageFailed, TryAgain

FULL = {
    errno.ENOSPC: "no space is left",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up",
    errno.EFBIG: "a file grew past the largest size allowed",
}
"""Error numbers of a disk that takes no more -> what they mean."""
LOCK_PATIENCE = 120.0
"""Seconds to wait for a lock that is held for a few renames, or for a copy where an edited version is replaced."""
T = TypeVar("T")
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def disk_error(error: OSError, path: Path) -> PipelineError | None:
    """Return the error for a failed write below `path`; None when the disk is not the cause."""
    if error.errno in FULL:
        mount = mount_of(path)
        free = shutil.disk_usage(mount).free
        message = f"{FULL[error.errno]} on {mount} ({free:,} bytes free) for {path}"
        return TryAgain(f"{message}: free some, then run the same command again")
    if error.errno in _CLOSED:
        at = f" at {error.filename}" if error.filename else ""
        return RecipeError(
            f"{path} is not writable: {error.strerror}{at}; change its permissions or name another directory"
        )
    if error.errno == errno.ENOTDIR:
        return RecipeError(f"{path} is not a directory, or is below a file; name another path")
    return None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn disk errors of the block into errors that name `path`."""
    try:
        yield
    except OSError as error:
        if (known := disk_error(error, path)) is None:
            raise
        raise known from error


@contextlib.contextmanager
def temporary_folder(prefix: str = "cpu-pipeline-") -> Iterator[Path]:
    """Make a folder for temporary files, and remove it at the end.

    Args:
        prefix: how its name begins.

    Raises:
        TryAgain: the disk is full, or no folder for temporary files can be written to.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # Python tries to write a file into each
        message = "no folder for temporary files can be written to: free some space, or let TMPDIR name another folder"
        raise TryAgain(message) from error
    with writing(place), tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


@contextlib.contextmanager
def hold_lock(path: Path, poll: float = 0.01) -> Iterator[None]:
    """Hold a file lock that every process holds for moments only; wait until it is free.

    Args:
        path: the lock's file.
        poll: seconds between two tries.

    Raises:
        TryAgain: it is held for longer than `LOCK_PATIENCE`.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=LOCK_PATIENCE, poll_interval=poll)
    try:
        lock.acquire()
    except Timeout:
        raise TryAgain(f"{path} is held for {LOCK_PATIENCE:.0f} s; end the process that holds it") from None
    try:
        yield
    finally:
        lock.release()


class UnchangedFiles(Generic[T]):
    """Reads files, and reads a file again only if it was replaced or written to since.

    Args:
        read: reads one file; what it raises is raised, and nothing is remembered then.
    """

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[tuple[int, int, int], T]] = {}

    def __call__(self, path: Path) -> T:
        """Return the content of a file.

        Raises:
            OSError: there is no such file.
        """
        about = path.stat()
        stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
        if path not in self._known or self._known[path][0] != stamp:
            self._known[path] = (stamp, self._read(path))
        return self._known[path][1]


def mount_of(path: Path) -> Path:
    """Return the mount point of `path`, which need not exist."""
    mount = path.absolute()
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    return mount


def make_dir(path: Path) -> None:
    """Create a directory, and sync it: it survives a power cut."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync_dir(path.parent)


def sync_dir(path: Path) -> None:
    """Sync a directory's entries to the disk; does nothing where the system cannot (Windows)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: Path, text: str, temporary: Path, errors: str = "strict") -> None:
    """Write a file atomically: after a crash it is complete or absent.

    Args:
        path: the file.
        text: its content.
        temporary: a path on the same file system, written first and then renamed.
        errors: how characters that are no UTF-8 are encoded (see `str.encode`).
    """
    with temporary.open("w", encoding="utf-8", errors=errors, newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    make_dir(path.parent)
    temporary.replace(path)
    sync_dir(path.parent)


def sizes(root: Path) -> dict[str, int] | None:
    """List a tree without reading its files: relative POSIX name -> bytes. None unless it is a tree of plain files."""
    found: dict[str, int] = {}
    try:
        if not stat.S_ISDIR(root.lstat().st_mode):
            return None
        for folder, folders, files in os.walk(root, onerror=_throw):
            for name in (*folders, *files):
                path = Path(folder, name)
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    found[path.relative_to(root).as_posix()] = about.st_size
                elif not stat.S_ISDIR(about.st_mode):
                    return None
    except OSError:
        return None
    return found


def seal(root: Path) -> dict[str, tuple[int, str]]:
    """Digest a finished tree, sync it to the disk and make its files read-only.

    Empty directories are removed, because the digest ignores them.

    Returns:
        Relative POSIX name -> (bytes, sha256).

    Raises:
        StageFailed: it has something other than plain files of its own, such as links.
        TryAgain: a file is shorter on the disk than it was when read.
    """
    files: dict[str, tuple[int, str]] = {}
    for folder, folders, names in os.walk(root, topdown=False, onerror=_throw):
        for name in (*names, *(name for name in folders if Path(folder, name).is_symlink())):
            path = Path(folder, name)
            relative, about = path.relative_to(root).as_posix(), path.lstat()
            if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
                what = {stat.S_IFREG: "a hard link", stat.S_IFLNK: "a link"}.get(stat.S_IFMT(about.st_mode), "no file")
                raise StageFailed(f"{relative} is {what}: an output consists of plain files; write a copy instead")
            files[relative] = _seal_file(path)
        if Path(folder) != root and not any(Path(folder).iterdir()):
            Path(folder).rmdir()
        else:
            Path(folder).chmod(0o755)
            sync_dir(Path(folder))
    for name, (size, _) in files.items():
        if (now := (root / name).stat().st_size) != size:
            message = f"{name} is {now} bytes on the disk and was {size}"
            raise TryAgain(
                f"{message}: is {mount_of(root)} full, or is something still writing? Run the same command again"
            )
    return dict(sorted(files.items()))


def _seal_file(path: Path) -> tuple[int, str]:
    path.chmod(0o644)
    with path.open("rb+") as file:  # Windows syncs only what is open for writing
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        os.fsync(file.fileno())
    path.chmod(0o444)
    return size, digest


def remove_tree(path: Path) -> int:
    """Remove a file or a tree, read-only parts too; return the bytes freed. It need not exist."""
    freed = 0
    for folder, folders, files in os.walk(path):
        for name in (".", *folders):  # made writable before the walk enters it
            with contextlib.suppress(OSError):
                if not (below := Path(folder, name)).is_symlink():
                    below.chmod(0o700)
        for name in files:
            with contextlib.suppress(OSError):
                about = (below := Path(folder, name)).lstat()
                freed += about.st_size
                if os.name == "nt":
                    below.chmod(0o600)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            freed += path.lstat().st_size
            path.unlink()
    return freed


def tree_bytes(path: Path) -> int:
    """Return the bytes of a file or of all files of a tree; 0 when it does not exist."""
    total = 0
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            return path.lstat().st_size
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def _throw(error: OSError) -> None:
    raise error


def at_home(path: Path) -> Path:
    """Replace a leading `~` or `~user` of a path by the home directory.

    Raises:
        RecipeError: the user or the home directory is unknown.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise RecipeError(f"{path}: {error}; write the whole path") from error


def user_folder(kind: Literal["cache", "data", "state"], instead: str) -> Path:
    """Return this program's folder of a kind in the user's home directory.

    Args:
        kind: of folder, as platformdirs and the XDG base directories tell them apart.
        instead: what to set or to name where the home directory is unknown, for the message.

    Raises:
        RecipeError: it is unknown: no HOME, and a user that has a number only, as in a container.
    """
    import platformdirs

    try:
        folder = Path(getattr(platformdirs, f"user_{kind}_dir")("cpu-pipeline"))
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():  # platformdirs returned `~` as it was before 4.11
        raise RecipeError(f"the home directory of this user is unknown: set HOME, or {instead}")
    return folder
