"""Keep the paths of a recipe below its directory: a recipe of somebody else must not read other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile


def below_recipe(written: Any, keys: Keys, recipe: RecipeFile[Any]) -> Any:
    """Resolve a path, or each path of a list, against the recipe's directory; return absolute paths as text.

    Args:
        written: the path or paths as the recipe writes them.
        keys: where the recipe has them, for messages.
        recipe: the recipe.

    Raises:
        Refused: a path is absolute, or leads out of the directory, by `..` or by a link.
    """
    if isinstance(written, list):
        return [below_recipe(path, keys, recipe) for path in written]
    path = Path(written)
    at = f"{recipe.document.where(keys)}: {'.'.join(map(str, keys))}"
    if path.is_absolute():
        raise Refused(f"{at}: `{written}` is absolute; write it relative to the recipe")
    base = recipe.path.resolve().parent
    target = base / path
    if ".." in path.parts or not target.resolve().is_relative_to(base):
        raise Refused(f"{at}: `{written}` leads out of the recipe's folder; put the files below it")
    return str(target)
