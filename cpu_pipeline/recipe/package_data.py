"""Find the data files of the package: beside it in a clone, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_INSIDE = _PACKAGE / "shipped"
_ROOT = _INSIDE if _INSIDE.is_dir() else _PACKAGE.parent


def folder(name: str) -> Path:
    """Return the folder `pipelines` or `recipes`."""
    return _ROOT / name


def file(name: str) -> Path:
    """Return one file, such as schema.json."""
    return _ROOT / name
