"""Keep the paths of a recipe below its directory: a recipe from elsewhere cannot read what it was not given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile


def below_recipe(written: Any, keys: Keys, recipe: RecipeFile[Any]) -> Any:
    """Resolve a path, or each path of a list, against the recipe's directory; return absolute paths as text.

    Raises:
        Refused: a path is absolute, or leads out of the directory, by `..` or by a link.
    """
    if isinstance(written, list):
        return [below_recipe(path, keys, recipe) for path in written]
    given = Path(written)
    at = f"{recipe.document.where(keys)}: {'.'.join(map(str, keys))}"
    if given.is_absolute():
        raise Refused(f"{at}: `{written}` is absolute; write it relative to the recipe")
    base = recipe.path.resolve().parent
    path = base / given
    if ".." in given.parts or not path.resolve().is_relative_to(base):
        raise Refused(f"{at}: `{written}` leads out of the recipe's folder; put the files below it")
    return str(path)
