"""Rows in files of this machine, and the images or recordings that they name, known by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import ClassVar

from cpu_pipeline.core.artifact import canonical, digest_listing, digest_resting
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import DATA, ORDER, Want, check_name, data_kind
from cpu_pipeline.sources._base import Source
from cpu_pipeline.sources.folder import copy_unchanged, list_folder


class File(Source):
    """A file of rows on this machine: .jsonl, .json, .csv, .tsv (or these with .gz), .parquet; or a list of them."""

    wants: ClassVar[Set[Want]] = frozenset({"data"})
    online: ClassVar[bool] = False

    file: Path | tuple[Path, ...]
    """Path of the file, or of several with different names (read in the order of these), relative to the recipe's."""
    media: Path | None = None
    """Directory with the files that the rows name (images, recordings), relative to the recipe's file. It is
    the directory of the rows' file or one below it; a row names a file by its path from there. A change of any of its
    files causes a new build of the steps that use the rows; hidden files and files of rows do not count."""

    outside: bool = False
    """Say that the paths are meant to lead out of the recipe's directory; the user confirms it with `--allow-path`."""

    def identity(self, want: Want) -> object:
        """Return the digest of the files' names and contents, and their order where it is not that of their names.

        Without an order, the digest is what `digest_tree` returns for a fetched copy.
        """
        files = self._files()
        identity = {"file": digest_listing({n: (p.stat().st_size, digest_resting(p)) for n, p in files.items()})}
        return {**identity, "order": self._order()} if self._order() else identity

    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Copy the files.

        Raises:
            StageFailed: they changed meanwhile.
        """
        files = self._files()
        copy_unchanged(files, out, ", ".join(map(str, files.values())))
        if order := self._order():
            (out / ORDER).write_text(canonical(order) + "\n", encoding="utf-8")

    def _order(self) -> list[str]:
        """List the files' names in the recipe's order; nothing where they are in order anyway."""
        names = [] if isinstance(self.file, Path) else list(dict.fromkeys(path.name for path in self.file))
        return names if names != sorted(names) else []

    def local_files(self, want: Want, allow: Set[str]) -> Mapping[str, Path]:
        """List the files."""
        return self._files()

    def _files(self) -> dict[str, Path]:
        paths = (self.file,) if isinstance(self.file, Path) else self.file
        if not paths:
            raise RecipeError("file: the list is empty; name at least one file")
        found: dict[str, Path] = {}
        for path in paths:
            if not data_kind(path.name):
                raise RecipeError(f"{path}: rows are read from {', '.join(DATA)} files; convert it to one of them")
            if not path.is_file():
                raise RecipeError(f"{path}: no such file; paths are relative to the recipe's file")
            if found.setdefault(check_name(path.name), path) != path:
                raise RecipeError(f"{path}: two files are called {path.name}; rename one")
        return found if self.media is None else {**self._media(self.media, paths), **found}

    def _media(self, media: Path, paths: Sequence[Path]) -> dict[str, Path]:
        """List the files that rows may name, by their paths from the directory of the rows."""
        homes = {path.parent.resolve() for path in paths}
        if len(homes) > 1:
            raise RecipeError(f"media: {media}: the rows lie in {len(homes)} directories; put them into one")
        [home] = homes
        if not media.resolve().is_relative_to(home):
            raise RecipeError(f"media: {media}: it does not lie below the rows' directory, {home.name}; move it there")
        below = media.resolve().relative_to(home)
        names = {(below / name).as_posix(): path for name, path in list_folder(media, deep=True).items()}
        return {check_name(name): path for name, path in names.items() if not data_kind(name)}
