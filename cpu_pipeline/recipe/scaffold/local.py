"""Models in folders and rows in files of this machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pipeline import sources
from cpu_pipeline.core.errors import RecipeError, Refused
from cpu_pipeline.core.repo_files import DATA, NO_ROWS, data_kind, format_of, names_split
from cpu_pipeline.core.tables import Table, open_table
from cpu_pipeline.recipe.scaffold.draft import Draft, Entry

ABOUT = {
    "hf": "a checkpoint, known by its content",
    "onnx": "an ONNX model, known by its content",
    "openvino": "an OpenVINO model, known by its content",
}
"""Format -> what the recipe says of the model."""
PEEK = 200
"""Rows whose cells are looked at."""


def absolute(path: Path) -> Path:
    """Make a path absolute; links stay, unless `..` stands behind one."""
    return path.resolve() if ".." in path.parts else path.absolute()


def is_local(name: str) -> bool:
    """Say whether a model is meant to be a folder of this machine: it is one, or it is no owner/name."""
    return Path(name).expanduser().exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith(".")


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine."""

    path: Path
    format: str
    config: Mapping[str, Any]
    names: frozenset[str]
    """Its files."""
    pickled: bool
    """Whether it has no weights but pickled ones."""

    @property
    def name(self) -> str:
        """Return what people call it: the folder's name; of a snapshot in the Hub's cache, the repository's."""
        for part in reversed(self.path.parts):
            if part.startswith("models--"):
                return part.removeprefix("models--").rpartition("--")[2]
        return self.path.name


def read_model(name: str) -> ModelFolder:
    """Look at a model's folder.

    Raises:
        RecipeError: there is none, or it holds no model.
        Refused: a link in it leads outside.
    """
    path = absolute(Path(name).expanduser())
    if path.is_file():
        raise RecipeError(f"{name}: this is a file; name the folder that holds the model and its config.json")
    if not path.is_dir():
        hint = "" if name.startswith((".", "/", "~")) else ", and a model on the Hub is owner/name"
        raise RecipeError(f"{name}: no such folder{hint}")
    names = frozenset(p.relative_to(path).as_posix() for depth in ("*", "*/*") for p in path.glob(depth) if p.is_file())
    format = format_of(names)
    pickled = False
    try:
        sources.find("folder", {"folder": path, "format": format}).local_files("model", frozenset())
    except Refused as error:
        if "pickle" not in str(error):
            raise
        pickled = True
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RecipeError(f"{path / 'config.json'}: not a valid JSON file: {error}") from None
    return ModelFolder(path, format, config if isinstance(config, dict) else {}, names, pickled)


def model_entry(model: ModelFolder, draft_path: Path, outside: list[Path]) -> Entry:
    """Write the model as the recipe names it."""
    source: dict[str, Any] = {"folder": place(model.path, draft_path, outside)}
    if model.format != "hf":
        source["format"] = model.format
    return Entry(_marked(source, model.path, outside), ABOUT[model.format])


def place(path: Path, recipe: Path, outside: list[Path]) -> str:
    """Write a path as a recipe names it: relative where it lies below the recipe, or in the same working directory."""
    home, target = absolute(recipe.parent), path.resolve()
    if not target.is_relative_to(home.resolve()):
        outside.append(target)
    if path.is_relative_to(home):
        return path.relative_to(home).as_posix()
    return os.path.relpath(path, home) if path.is_relative_to(Path.cwd()) else str(path)


def _marked(source: dict[str, Any], path: Path, outside: Sequence[Path]) -> dict[str, Any]:
    return {**source, "outside": True} if path.resolve() in outside else source


@dataclass(frozen=True)
class RowsFile:
    """A file of rows on this machine."""

    path: Path
    table: Table
    rows: Sequence[Mapping[str, Any]]
    """The first ones."""


def read_rows(name: str) -> RowsFile:
    """Open a file of rows, and look at the first ones.

    Raises:
        RecipeError, StageFailed: there is no such file, or it can't be read.
    """
    path = absolute(Path(name).expanduser())
    if not path.is_file():
        raise RecipeError(f"{name}: no such file of rows")
    sources.find("file", {"file": path}).local_files("data", frozenset())
    table = open_table(path, path.name)
    if not table.count:
        raise RecipeError(f"{path}: no rows; name data that has some")
    return RowsFile(path, table, peek(table))


def peek(table: Table) -> list[dict[str, Any]]:
    """Read some rows, spread over the whole file."""
    indices = range(0, table.count, max(1, table.count // PEEK))
    return [row for _, row in table.read(indices, table.columns)]


def split_folder(name: str) -> tuple[Path, Path | None] | None:
    """Choose the files of a folder to validate and to calibrate on, by their names; None where `name` is no folder.

    Raises:
        RecipeError: it has no file of rows, or its names do not tell.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and data_kind(path.name) and path.name not in NO_ROWS
    )
    if not files:
        raise RecipeError(f"{name}: no file of rows ({', '.join(DATA)}) in this folder")
    named = {split: [p for p in files if names_split(p.name, split)] for split in ("validation", "test", "train")}
    scored = named["validation"] or named["test"] or (files if len(files) == 1 else [])
    if len(scored) != 1:
        shown = ", ".join(path.name for path in files)
        raise RecipeError(f"{name}: which file is to be scored? There are {shown}; name it: `--data FILE`")
    return scored[0], named["train"][0] if len(named["train"]) == 1 else None


def data_entry(
    rows: RowsFile, columns: Mapping[str, str], draft: Draft, recipe: Path, about: str, **more: Any
) -> Entry:
    """Write rows as the recipe names them."""
    source: dict[str, Any] = {"file": place(rows.path, recipe, draft.outside)}
    if media := _media(rows, columns):
        source["media"] = place(media, recipe, draft.outside)
    source |= more
    renamed = {column: name for column, name in columns.items() if column != name}
    if renamed:
        source["columns"] = renamed
    return Entry(_marked(source, rows.path, draft.outside), about)


def _media(rows: RowsFile, columns: Mapping[str, str]) -> Path | None:
    """Find the directory of the images or recordings that rows name; None where they name none."""
    names = [row.get(columns.get(kind, "")) for kind in ("image", "audio") for row in rows.rows]
    files = [name for name in names if isinstance(name, str) and (rows.path.parent / name).is_file()]
    if not files:
        return None
    tops = {Path(name).parts[0] for name in files if len(Path(name).parts) > 1}
    return rows.path.parent / tops.pop() if len(tops) == 1 and all("/" in name for name in files) else rows.path.parent
