"""The images and recordings that rows name: found beside the rows, and carried with them under their digests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import copy_file

FOLDER = "files"
"""The directory beside rows.jsonl."""


@contextmanager
def named(where: str) -> Iterator[None]:
    """Turn a ValueError into a RecipeError that names the row."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(f"{where} {error}; correct it") from None


class Carrier:
    """Copies the files that rows name from a fetched directory into an artifact of rows, each content once.

    A file's new name is its digest, so that rows of equal content are equal whatever their files were called.
    """

    def __init__(self, home: Path, out: Path) -> None:
        self._home = home.resolve()
        self._out = out

    def __call__(self, value: Any, folder: Path) -> Any:
        """Copy a file; return its path from the artifact, or `value` itself where it names no file (None).

        Args:
            value: A path relative to `folder`, the content itself, or {bytes, path} as the datasets library stores
                images and recordings in parquet files.
            folder: Directory of the row's file, from the fetched directory.

        Raises:
            ValueError: there is no such file, or the value is something else.
        """
        content, name = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (None, value)
        if isinstance(value, bytes):
            content, name = value, None
        if isinstance(content, bytes):
            return self._write(content, _suffix(str(name or "")))
        if name is None:
            return None
        if not isinstance(name, str):
            raise ValueError(f"is {type(name).__name__}, not the name of a file")
        path = self._find(name, folder)
        target = f"{FOLDER}/{digest_file(path)}{_suffix(name)}"
        if not (self._out / target).exists():
            copy_file(path, self._out / target)
        return target

    def _write(self, content: bytes, suffix: str) -> str:
        target = f"{FOLDER}/{hashlib.sha256(content).hexdigest()}{suffix}"
        (self._out / FOLDER).mkdir(exist_ok=True)
        (self._out / target).write_bytes(content)
        return target

    def _find(self, name: str, folder: Path) -> Path:
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or "\\" in name or not plain.parts:
            raise ValueError(f"is {name!r}, which is not a path below the rows' directory")
        path = (self._home / folder / plain).resolve()
        if not path.is_relative_to(self._home) or not path.is_file():
            raise ValueError(f"names {name!r}, which does not lie beside the rows (`media:` names their directory)")
        return path


def _suffix(name: str) -> str:
    ending = PurePosixPath(name).suffix.lower()
    return ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) else ""
