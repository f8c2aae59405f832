"""Keep the paths of a recipe below its directory, or below what the user allows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.graph.plan import Outside
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile


def resolve_path(written: Any, keys: Keys, recipe: RecipeFile[Any], *, outside: bool, found: list[Outside]) -> Any:
    """Resolve a path, or each path of a list, against the recipe's directory; return absolute paths as text.

    Where a path leads decides, not how it is written: `..`, `~`, an absolute path or a link may end inside.

    Args:
        written: the path or paths as the recipe writes them.
        keys: where the recipe has them, for messages.
        recipe: the recipe, with the directories that the user allows.
        outside: the recipe says that the path is meant to lead out of its directory.
        found: takes every path that leads out.

    Raises:
        Refused: a path leads out of the recipe's directory, and the user does not allow it.
    """
    if isinstance(written, list):
        return [resolve_path(path, keys, recipe, outside=outside, found=found) for path in written]
    base = recipe.path.resolve().parent
    path = base / Path(written).expanduser()
    target = path.resolve()
    if target.is_relative_to(base):
        return str(path)
    allowed = any(target.is_relative_to(directory.expanduser().resolve()) for directory in recipe.allowed)
    if not allowed and not (outside and recipe.shows_outside):
        where = f"{recipe.document.where(keys)}: {'.'.join(map(str, keys))}"
        raise Refused(
            f"{where}: `{written}` leads out of the recipe's folder; if you trust this recipe with it, allow it: "
            f"{allow_option(target)}; or put the files below the recipe's folder"
        )
    found.append(Outside(keys, recipe.document.where(keys), str(written), target, allowed))
    return str(path)


def allow_option(path: Path) -> str:
    """Write the option that allows a path, to be copied into a shell."""
    return f"--allow-path {shlex.quote(str(path))}"
