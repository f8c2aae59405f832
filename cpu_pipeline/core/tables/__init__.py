"""Read rows of data files: only the columns and rows that are wanted, and never a whole file at once."""

from __future__ import annotations

from pathlib import Path

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import DATA, data_kind
from cpu_pipeline.core.tables._csv import open_csv
from cpu_pipeline.core.tables._json import open_json, open_jsonl
from cpu_pipeline.core.tables._parquet import class_names, open_parquet
from cpu_pipeline.core.tables._table import Table

__all__ = ["Table", "class_names", "open_table"]


def open_table(path: Path, name: str) -> Table:
    """Open a data file. Text files are read through once: their rows are counted, and each is checked.

    Args:
        path: the file.
        name: its name, whose ending tells its kind, and which messages use.

    Raises:
        RecipeError: it is not valid; the message names the line, where there are lines.
    """
    match data_kind(name):
        case ".parquet":
            return open_parquet(path, name)
        case ".csv":
            return open_csv(path, name, ",")
        case ".tsv":
            return open_csv(path, name, "\t")
        case ".json":
            return open_json(path, name)
        case ".jsonl" | ".ndjson":
            return open_jsonl(path, name)
        case _:
            raise RecipeError(f"{name}: rows are read from {', '.join(DATA)} files; convert it to one of them")
