"""The generated pages of docs/reference: one module for each page, and the JSON Schemas of `--json`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("docs", "reference")
"""Where the pages are in a clone."""
SCHEMAS = FOLDER / "json"


def pages() -> dict[Path, str]:
    """Return the path, below the root of a clone, and the text of every generated file."""
    from cpu_pipeline.cli._reference import backends, commands, json_output, python, recipe, schemas, stages, tasks

    markdown = {
        "backends": backends.page,
        "cli": commands.page,
        "json": json_output.page,
        "python": python.page,
        "recipe": recipe.page,
        "stages": stages.page,
        "tasks": tasks.page,
    }
    found = {FOLDER / f"{name}.md": page() for name, page in markdown.items()}
    return found | {SCHEMAS / f"{name}.json": text for name, text in schemas.texts().items()}
