"""Rows in files of this machine, known by their content."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import ClassVar

from cpu_pipeline.core.artifact import digest_file, digest_listing
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import DATA, Want, check_name
from cpu_pipeline.sources._base import Source
from cpu_pipeline.sources.folder import copy_unchanged


class File(Source):
    """A file of rows on this machine: .jsonl, .csv or .parquet; or a list of them."""

    wants: ClassVar[Set[Want]] = frozenset({"data"})
    online: ClassVar[bool] = False

    file: Path | tuple[Path, ...]
    """Path of the file, or of several with different names (read in the order of these), relative to the recipe's."""

    def identity(self, want: Want) -> object:
        """Return the digest of the files' names and contents: what `digest_tree` says of a fetched copy."""
        files = self._files()
        return {"file": digest_listing({n: (p.stat().st_size, digest_file(p)) for n, p in files.items()})}

    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Copy the files.

        Raises:
            StageFailed: they changed meanwhile.
        """
        files = self._files()
        copy_unchanged(files, out, ", ".join(map(str, files.values())))

    def _files(self) -> dict[str, Path]:
        paths = (self.file,) if isinstance(self.file, Path) else self.file
        if not paths:
            raise RecipeError("file: the list is empty; name at least one file")
        found: dict[str, Path] = {}
        for path in paths:
            if path.suffix.lower() not in DATA:
                raise RecipeError(f"{path}: rows are read from {', '.join(DATA)} files; convert it to one of them")
            if not path.is_file():
                raise RecipeError(f"{path}: no such file; paths are relative to the recipe's file")
            if found.setdefault(check_name(path.name), path) != path:
                raise RecipeError(f"{path}: two files are called {path.name}; rename one")
        return found
