"""Read a JSON file of a model's directory, with errors that name the file and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import PipelineError, RecipeError


def read_json(file: Path, hint: str, kind: type = dict, error: type[PipelineError] = RecipeError) -> Any:
    """Read a JSON file whose top level is a `kind`.

    Args:
        file: The file; messages have its name alone, for a model's directory has another path on every machine.
        hint: What to do about it; ends the message.
        kind: `dict` or `list`.
        error: What to raise.

    Raises:
        RecipeError: (or `error`) it is missing, not JSON, or something else at its top level.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        raise error(f"{file.name} is not there: {hint}") from missing
    except (ValueError, RecursionError) as broken:
        raise error(f"{file.name} is not valid JSON ({broken}): {hint}") from broken
    if not isinstance(value, kind):
        raise error(f"{file.name} is not a JSON {'object' if kind is dict else kind.__name__}: {hint}")
    return value
