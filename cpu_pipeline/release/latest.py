"""The `latest` link: which version is in service."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.core.files import sync_dir


def in_service(home: Path) -> Path | None:
    """Return the folder that `latest` names; None when there is none, or it names nothing."""
    name = latest(home)
    path = home / name if name else None
    return path if path is not None and path.is_dir() else None


def latest(home: Path) -> str | None:
    """Read which folder `latest` names."""
    try:
        path = home / "latest"
        return os.readlink(path) if path.is_symlink() else path.read_text(encoding="utf-8").strip()  # noqa: PTH115  # the name itself is wanted, not a Path
    except (OSError, ValueError):
        return None


def require_link(home: Path) -> None:
    """Refuse a `latest` that is a folder, as a copy that followed links leaves it: it names no version."""
    path = home / "latest"
    if path.is_dir() and not path.is_symlink():
        raise Refused(
            f"{path} is a folder, and should name one (a copy that followed links?); remove it, or move it away"
        )


def label(name: str | None) -> str | None:
    """Give the version that a folder holds: a stand-in for one that is being replaced is called `.<version>.…`."""
    return name.split(".")[1] if name and name.startswith(".") and name.count(".") > 1 else name


def point(home: Path, version: str) -> None:
    """Swap `latest` to this folder by rename: a symlink, or a file that names it where links can't be."""
    if latest(home) == version:
        return
    fresh = home / f".latest.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        fresh.symlink_to(version, target_is_directory=True)
    except OSError:
        fresh.write_text(version + "\n", encoding="utf-8")
    fresh.replace(home / "latest")
    sync_dir(home)
