"""The directory of the machine's lock: one of this user's alone, and the same for all builds here."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import user_folder

_RUN = Path("/run/user")
"""Where systemd keeps a directory of each user, by number."""


def _uid() -> int | None:
    """Return the number of this user, which need not have a name; None on Windows."""
    return os.getuid() if hasattr(os, "getuid") else None


def machine_folder(last: Path) -> Path:
    """Return the first directory that is this user's alone and can be written: nobody else can hold or block it.

    Args:
        last: taken where the user has no such directory, as in a container: a directory in the store.

    Raises:
        RecipeError: not even that can be written.
    """
    for folder in _candidates():
        if _is_own(folder.parent, private=False) and _make(folder):
            return folder
    if _make(last):
        return last
    raise RecipeError(f"{last} can't be a directory of this user alone; remove what is in its place")


def _candidates() -> Iterator[Path]:
    """Name what systems keep for a user: by session, gone with it; else the state directory, by machine."""
    named, uid = os.environ.get("XDG_RUNTIME_DIR", ""), _uid()
    for runtime in (Path(named), _RUN / str(uid)):
        if runtime.is_absolute():
            yield runtime / "cpu-pipeline"
    with contextlib.suppress(RecipeError, OSError):  # without a home directory there is none
        state = user_folder("state", "name a directory by XDG_RUNTIME_DIR")
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Home directories are shared between machines; a measurement disturbs only its own.
        yield state / f"machine-{platform.node() or 'local'}"


def _make(folder: Path) -> bool:
    """Create a directory for this user alone, or take one that is; say whether it can be written."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_own(folder, private=True):
        return False
    probe = folder / f".{secrets.token_hex(4)}"
    try:
        folder.chmod(0o700)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _is_own(folder: Path, private: bool) -> bool:
    """Say whether it is a directory, no link, of this user; one that others can write to is not, when `private`."""
    try:
        about = folder.lstat() if private else folder.stat()
    except OSError:
        return False
    owned = _uid() is None or about.st_uid == _uid()
    return owned and stat.S_ISDIR(about.st_mode) and not about.st_mode & stat.S_IWOTH


def set_aside(path: Path) -> None:
    """Move a damaged file of the lock out of the way; its name says so, and nothing reads it again."""
    with contextlib.suppress(OSError):
        path.rename(path.with_name(f"{path.name}.damaged"))
        return
    with contextlib.suppress(OSError):
        path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}.damaged"))
