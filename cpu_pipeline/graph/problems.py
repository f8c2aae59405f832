"""Collect what is wrong with a recipe and its pipeline, to report everything at once."""

from __future__ import annotations

from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.recipe.document import Keys, Problem
from cpu_pipeline.recipe.reader import RecipeFile


class Problems:
    """What is wrong with a recipe and its pipeline."""

    def __init__(self, recipe: RecipeFile[Any], pipeline: RecipeFile[Any]) -> None:
        self.recipe, self.pipeline = recipe, pipeline
        self._found: list[tuple[RecipeFile[Any], Problem]] = []

    def in_recipe(self, keys: Keys, message: str) -> None:
        """Add a problem of the recipe's file."""
        self._found.append((self.recipe, Problem(keys, message)))

    def in_pipeline(self, keys: Keys, message: str) -> None:
        """Add a problem of the file that has the steps."""
        self._found.append((self.pipeline, Problem(keys, message)))

    def extend(self, problems: list[Problem]) -> None:
        """Add problems of the recipe's file."""
        self._found.extend((self.recipe, problem) for problem in problems)

    def raise_all(self) -> None:
        """Raise every problem so far, if there is any.

        Raises:
            RecipeError: the problems, one a line, each file's in the order of its lines.
        """
        files = {id(file): file for file, _ in self._found}
        texts = [
            str(file.document.error(problem for owner, problem in self._found if owner is file))
            for file in files.values()
        ]
        if texts:
            raise RecipeError("\n".join(texts))
