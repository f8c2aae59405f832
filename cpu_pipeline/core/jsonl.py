"""Files of JSON lines: rows, predictions, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError

ROWS = "rows.jsonl"
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        RecipeError: a line is not a JSON object; the message names the line.
    """
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RecipeError(f"{path}:{number}: not a JSON line: {error}") from error
            if not isinstance(row, dict):
                raise RecipeError(f"{path}:{number}: a line must be a JSON object")
            rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, keys sorted, so that equal rows are equal bytes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
