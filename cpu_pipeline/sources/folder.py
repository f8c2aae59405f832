"""A model or a tokenizer in a folder of this machine, known by its content."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from cpu_pipeline.core.artifact import digest_file, digest_listing, digest_resting, digest_tree
from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed
from cpu_pipeline.core.repo_files import (
    Format,
    Want,
    check_name,
    choose_model,
    choose_tokenizer,
    copy_files,
    refuse_pickles,
)
from cpu_pipeline.sources._base import Source


class Folder(Source):
    """A folder on this machine, laid out as the Hub and `save_pretrained` lay it out."""

    wants: ClassVar[Set[Want]] = frozenset({"model", "tokenizer"})
    online: ClassVar[bool] = False

    folder: Path
    """Path of the folder, relative to the recipe's file."""
    format: Format = "hf"
    """What the model in it is: `hf` (config.json, safetensors), `onnx` or `openvino`."""
    outside: bool = False
    """Say that the path is meant to lead out of the recipe's directory; the user confirms it with `--allow-path`."""

    def identity(self, want: Want) -> object:
        """Return the digest of the wanted files' names and contents: what `digest_tree` returns for a fetched copy."""
        files = self._files(want)
        digests = {name: (path.stat().st_size, digest_resting(path)) for name, path in files.items()}
        return {"folder": digest_listing(digests), "format": self.format}

    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Copy the wanted files.

        Raises:
            StageFailed: they changed meanwhile.
        """
        files = self._files(want)
        refuse_pickles(files, allow, str(self.folder))
        copy_unchanged(files, out, str(self.folder))
        if self._files(want).keys() != files.keys():
            raise StageFailed(f"{self.folder}: changed during the build; run again once it rests")

    def local_files(self, want: Want, allow: Set[str]) -> Mapping[str, Path]:
        """List the wanted files."""
        files = self._files(want)
        refuse_pickles(files, allow, str(self.folder))
        return files

    def _files(self, want: Want) -> dict[str, Path]:
        names = list_folder(self.folder)
        if want == "tokenizer":
            chosen = choose_tokenizer(names)
            if not chosen:
                raise RecipeError(f"{self.folder}: no tokenizer: neither tokenizer.json nor a vocabulary file")
        else:
            chosen = choose_model(names, self.format, str(self.folder))
        return {name: names[name] for name in chosen}


def list_folder(folder: Path, *, deep: bool = False) -> dict[str, Path]:
    """List a folder's plain files, hidden ones left out: relative POSIX name -> path without links.

    Two levels deep, as far as models go, or with `deep` all of them.

    Raises:
        RecipeError: there is no such folder.
        Refused: a symbolic link in it leads outside it, and not, as in the Hub's cache, to the same repository's files.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder; paths are relative to the recipe's file")
    home = folder.resolve()
    blobs = _blobs(home)
    found = {}
    for top, folders, files in os.walk(home):
        here = Path(top)
        for name in (*folders, *files):
            path = here / name
            if path.is_symlink() and not any(path.resolve().is_relative_to(each) for each in (home, *blobs)):
                raise Refused(
                    f"{folder}: {path.relative_to(home)} is a link that leads outside the folder; "
                    f"put the file itself there: `cp -rL` copies a folder so"
                )
        folders[:] = [name for name in folders if not name.startswith(".")] if deep or here == home else []
        for name in files:
            path = (here / name).resolve()
            if not name.startswith(".") and path.exists() and stat.S_ISREG(path.stat().st_mode):
                found[check_name((here / name).relative_to(home).as_posix())] = path
    return found


def _blobs(home: Path) -> list[Path]:
    """Name the folder that the Hub's cache keeps the files of a snapshot in, where `home` is one or lies in one.

    The layout is models--OWNER--NAME/{blobs,snapshots/<commit>}; files of a snapshot are links into blobs.
    https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    return [
        snapshots.parent / "blobs"
        for commit, snapshots in pairwise((home, *home.parents))
        if snapshots.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", commit.name)
    ]


def copy_unchanged(files: dict[str, Path], out: Path, where: str) -> None:
    """Copy files that must not change while they are read.

    Raises:
        StageFailed: one changed; discard `out`.
    """
    try:
        before = _digest(files)
        copy_files(files, out)
        same = before == digest_tree(out) == _digest(files)
    except FileNotFoundError:
        same = False
    if not same:
        raise StageFailed(f"{where}: changed during the build; run again once it rests")


def _digest(files: dict[str, Path]) -> str:
    return digest_listing({name: (path.stat().st_size, digest_file(path)) for name, path in files.items()})
