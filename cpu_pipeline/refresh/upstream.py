"""Branches that a recipe follows: their newest revisions, written into the recipe; all its other text stays."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pipeline.core import hub_api as hub
from cpu_pipeline.core.files import write_file, writing
from cpu_pipeline.core.repo_files import Want
from cpu_pipeline.recipe.document import Keys, Problem, parse
from cpu_pipeline.recipe.reader import RecipeFile, load_recipe, recipe_of
from cpu_pipeline.recipe.spec import Recipe, Trigger


@dataclass(frozen=True)
class Move:
    """One source whose branch has advanced."""

    keys: Keys
    """Where its `revision` stands in the recipe."""
    kind: Trigger
    repo: str
    branch: str
    old: str
    new: str

    @property
    def says(self) -> str:
        what = ".".join(map(str, self.keys[:-1]))
        return f"{what}: {self.branch} of {self.repo} advanced: {self.old[:12]} → {self.new[:12]}"


def moves(recipe: RecipeFile[Recipe], kinds: Collection[str]) -> list[Move]:
    """Ask the Hub for the newest revision of each followed branch; list the sources whose branch advanced.

    Args:
        recipe: names the branch in `refresh.follow`.
        kinds: look at sources of these kinds alone: model, data.

    Raises:
        RecipeError: the recipe follows a branch that a repository does not have.
        TryAgain: the Hub does not answer.
    """
    refresh = recipe.value.refresh
    if refresh is None or refresh.follow is None:
        return []
    heads: dict[tuple[str, Want], str] = {}
    found = []
    for keys, want, source in _sources(recipe.value):
        kind: Trigger = "data" if want == "data" else "model"
        if kind not in kinds:
            continue
        wanted: Want = "data" if want == "data" else "model"
        repo = str(source["hub"])
        if (repo, wanted) not in heads:
            heads[repo, wanted] = hub.resolve(repo, wanted, refresh.follow)
        if (head := heads[repo, wanted]) != source["revision"]:
            found.append(Move((*keys, "revision"), kind, repo, refresh.follow, str(source["revision"]), head))
    return found


def _sources(recipe: Recipe) -> Iterator[tuple[Keys, Want, Mapping[str, Any]]]:
    candidates: list[tuple[Keys, Want, Mapping[str, Any] | None]] = [
        (("model",), "model", recipe.model),
        (("tokenizer",), "tokenizer", recipe.tokenizer),
        (("teacher",), "model", recipe.teacher),
        *((("data", str(role)), "data", source) for role, source in recipe.data.items()),
    ]  # fmt: skip
    for keys, want, source in candidates:
        if source is not None and "hub" in source:
            yield keys, want, source


def moved(recipe: RecipeFile[Recipe], found: Sequence[Move]) -> tuple[RecipeFile[Recipe], str]:
    """Return the recipe with these new revisions, and its text. Nothing is written to disk.

    Raises:
        RecipeError: a revision stands where it can't be replaced (behind an alias).
    """
    text = _text(recipe.path)
    mark = "\ufeff" if text.startswith("\ufeff") else ""  # of byte order; the document's columns leave it out
    text = text.removeprefix(mark)
    marks = recipe.document.marks
    lines = text.splitlines(keepends=True)
    for move in found:
        if move.keys not in marks:  # behind an alias: it moves with what the alias stands for, or it is refused below
            continue
        line, column = marks[move.keys]
        at = sum(len(text_line) for text_line in lines[: line - 1]) + column - 1
        value = re.compile(r"""(["']?revision["']?\s*:\s+(?:&\S+\s+)?["']?)""" + re.escape(move.old))
        if match := value.match(text, at):
            # Both commits have 40 digits: what comes after stays where the marks say it is.
            text = text[: match.end(1)] + move.new + text[match.end() :]
    after = recipe_of(parse(text, recipe.path))
    for move in found:
        if _value(after.document.value, move.keys) != move.new:
            message = (
                f"`{move.branch}` stands at {move.new}, which can't be written here (an alias?); write it there by hand"
            )
            raise recipe.document.error([Problem(move.keys, message)])
    return RecipeFile(after.document, after.value, recipe.sets, recipe.allowed), mark + text


def _value(root: Any, keys: Keys) -> Any:
    for key in keys:
        root = root[key]
    return root


def write(path: Path, text: str) -> None:
    """Write the text of a recipe, whole or not at all."""
    target = path.resolve()  # a link stays a link
    with writing(target):
        write_file(target, text, target.with_name(f".{target.name}.{os.getpid()}"))


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def rewrite(path: Path, found: Sequence[Move]) -> None:
    """Write new revisions into a recipe's file as it is by now: what somebody wrote meanwhile stays.

    Raises:
        RecipeError: it can't be read, or names something else by now; it is left as it is.
    """
    recipe = load_recipe(path)
    follows = recipe.value.refresh.follow if recipe.value.refresh is not None else None
    sources = {(*keys, "revision"): source for keys, _, source in _sources(recipe.value)}
    for move in found:
        source = sources.get(move.keys, {})
        if (follows, source.get("hub")) != (move.branch, move.repo) or source["revision"] not in (move.old, move.new):
            message = (
                f"`{move.branch}` of {move.repo} advanced, and this was changed meanwhile; run the same command again"
            )
            raise recipe.document.error([Problem(move.keys, message)])
    text = moved(recipe, found)[1]
    if text != _text(path):
        write(path, text)
