"""Options of the command line that change the recipe itself, and not a step: `--set data.validation.take=50`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe.reader import RecipeFile, recipe_of
from cpu_pipeline.recipe.spec import Recipe

DATA = "data."
"""What begins the name of a role, where a step's name would stand."""
Sets = Mapping[str, Mapping[str, Any]]
"""Step id, or `data.ROLE` -> option -> value."""


def apply_sets(loaded: RecipeFile[Recipe], sets: Sets | None) -> RecipeFile[Recipe]:
    """Return a recipe with options of the command line: those of data in its text, those of steps beside it.

    Raises:
        RecipeError: the recipe has no such data, or the value is wrong.
    """
    sets = sets or {}
    steps = {name: options for name, options in sets.items() if not name.startswith(DATA)}
    data = {name.removeprefix(DATA): options for name, options in sets.items() if name.startswith(DATA)}
    if not data:
        return _with(loaded, loaded, steps, sets)
    written = copy.deepcopy(loaded.document.value)
    roles = written.get("data") or {}
    for role, options in data.items():
        if role not in roles:
            known = f"; it has {', '.join(roles)}" if roles else ""
            raise RecipeError(f"--set data.{role}: the recipe has no such data{did_you_mean(role, roles)}{known}")
        roles[role] = {**roles[role], **options}
    document = replace(loaded.document, value=written)
    try:
        changed = recipe_of(document)
    except RecipeError as error:  # without them the recipe was right
        names = ", ".join(f"--set {DATA}{role}.{option}" for role, options in data.items() for option in options)
        raise RecipeError(f"{names}: {error}") from None
    return _with(loaded, changed, steps, sets)


def _with(loaded: RecipeFile[Recipe], changed: RecipeFile[Recipe], steps: Sets, given: Sets) -> RecipeFile[Recipe]:
    """Give a changed recipe what the user allows the one that was loaded."""
    return RecipeFile(
        changed.document,
        changed.value,
        steps,
        loaded.allowed,
        shows_outside=loaded.shows_outside,
        as_written=loaded if given else None,
        given=given,
    )
