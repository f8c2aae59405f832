"""Read rows of .parquet, .csv and .jsonl files: only the columns and rows that are wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.jsonl import read_jsonl

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """One data file."""

    name: str
    columns: tuple[str, ...]
    count: int
    """Rows in it."""
    take: Callable[[Sequence[int], Sequence[str]], list[dict[str, Any]]]
    """Read rows by index, in the order of the indices, with these columns."""
    labels: Mapping[str, list[str]] = field(default_factory=dict)
    """Column -> names of its classes, where the file has them."""
    lines: Sequence[int] = ()
    """The line of each row, for files of lines."""

    def row_name(self, index: int) -> str:
        """Name a row for messages: `train.jsonl:7` or `train.parquet, row 7`."""
        return f"{self.name}:{self.lines[index]}" if self.lines else f"{self.name}, row {index + 1}"


def open_table(path: Path, name: str) -> Table:
    """Open a data file; parquet files are read only when rows are taken.

    Raises:
        StageFailed: the file is not valid.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return _jsonl(path, name)
    return _parquet(path, name) if kind == ".parquet" else _csv(path, name)


@contextmanager
def _valid(name: str) -> Iterator[None]:
    """Name the file in the error when pyarrow cannot read it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        kind = Path(name).suffix.lower()
        raise StageFailed(f"{name}: not a valid {kind} file: {reason}; fetch or write it again") from None


def _jsonl(path: Path, name: str) -> Table:
    try:
        rows = read_jsonl(path)
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(path), name)) from None
    except UnicodeError as error:
        raise StageFailed(f"{name}: not a valid .jsonl file: {error}; write it as UTF-8") from None
    with path.open("rb") as file:
        lines = [number for number, line in enumerate(file, 1) if line.strip()]
    columns = tuple(dict.fromkeys(key for row in rows for key in row))

    def take(indices: Sequence[int], wanted: Sequence[str]) -> list[dict[str, Any]]:
        return [{key: rows[i][key] for key in wanted if key in rows[i]} for i in indices]

    return Table(name, columns, len(rows), take, lines=lines if len(lines) == len(rows) else ())


def _csv(path: Path, name: str) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    lines = csv.ParseOptions(newlines_in_values=True)
    with _valid(name):
        types = csv.ConvertOptions(column_types={"id": pa.string()})
        table = csv.read_csv(path, parse_options=lines, convert_options=types)
    return Table(name, tuple(table.column_names), table.num_rows, lambda i, c: _rows(table.select(list(c)), i))


def _parquet(path: Path, name: str) -> Table:
    from pyarrow import parquet

    with _valid(name):
        schema = parquet.read_schema(path)
        count = parquet.read_metadata(path).num_rows

    def take(indices: Sequence[int], wanted: Sequence[str]) -> list[dict[str, Any]]:
        with _valid(name):
            return _rows(parquet.read_table(path, columns=list(wanted), partitioning=None), indices)

    return Table(name, tuple(schema.names), count, take, dict(_labels(schema)))


def _rows(table: pa.Table, indices: Sequence[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.take(list(indices)).to_pylist()
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """Convert values that JSON lacks to text. Bytes remain: the task accepts or refuses them."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _labels(schema: pa.Schema) -> Iterator[tuple[str, list[str]]]:
    """List column -> class names, from the metadata that the datasets library leaves in parquet files."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        for column, feature in features.items():
            inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
                yield column, [str(name) for name in inner["names"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return
