"""Columns of the rows by which gates divide them: the task's own, and those that were read beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cpu_pipeline.core.jsonl import COLUMNS, read_jsonl
from cpu_pipeline.tasks._base import Row

NONE = "(none)"
"""What a row has that lacks a column."""
FEWEST = 10
"""Clusters from which samples can be drawn."""


def read_columns(data: Path) -> dict[str, Row]:
    """Read the columns beside the rows that are none of the task's own: id -> them."""
    path = data.with_name(COLUMNS)
    return {str(line["id"]): line for line in read_jsonl(path)} if path.is_file() else {}


def value_of(row: Row, columns: Mapping[str, Row], column: str) -> str:
    """Return the value of a column as text; `(none)` where the row has none."""
    value = row[column] if column in row else columns.get(str(row["id"]), {}).get(column)
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def clusters_of(rows: Sequence[Row], columns: Mapping[str, Row], cluster: str | None) -> list[str] | None:
    """Name the cluster of each row; None where each row stands alone.

    A row without the column, or with an empty one, stands alone. Of few clusters nothing can be drawn: rows stand alone
    then, and what is shown holds for these clusters.
    """
    if cluster is None:
        return None
    values = [value_of(row, columns, cluster) for row in rows]
    found = [f"(row {row['id']})" if value in ("", NONE) else value for row, value in zip(rows, values, strict=True)]
    return found if FEWEST <= len(set(found)) < len(found) else None
