"""The generated pages of docs/reference: one module for each page, and the JSON Schemas of `--json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

FOLDER = Path("docs", "reference")
"""Where the pages are in a clone."""
SCHEMAS = FOLDER / "json"


def pages(root: Any) -> dict[Path, str]:
    """Return the path, below the root of a clone, and the text of every generated file.

    Args:
        root: click's command of the whole program.
    """
    from cpu_pipeline.cli._reference import backends, commands, json_output, python, recipe, schemas, stages, tasks

    markdown: Mapping[str, Callable[[], str]] = {
        "backends": backends.page,
        "cli": partial(commands.page, root),
        "json": json_output.page,
        "python": python.page,
        "recipe": recipe.page,
        "stages": stages.page,
        "tasks": tasks.page,
    }
    found = {FOLDER / f"{name}.md": page() for name, page in markdown.items()}
    return found | {SCHEMAS / f"{name}.json": text for name, text in schemas.texts().items()}
