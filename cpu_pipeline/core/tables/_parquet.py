"""Rows of Parquet files, batch by batch, with the names that the datasets library leaves for class numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core import text_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.tables._table import Rows, Table, twice
from cpu_pipeline.core.text import one_line

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 128
"""Rows that are held at once."""
LARGE = 1 << 20
"""Bytes of a row group's texts from which they stay packed in memory."""
MOST, GROWTH = 256 << 20, 1000
"""Bytes of a row group's column, and how many times its packed size, that together are refused."""


def open_parquet(path: Path, name: str) -> Table:
    """Open a file; no row is read yet.

    Raises:
        RecipeError: it is not valid, or names a column twice.
    """
    from pyarrow import parquet

    with _valid(name), parquet.ParquetFile(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    if (column := twice(schema.names)) is not None:
        raise RecipeError(f"{name}: the column {column!r} is there twice; rename one")

    def read(indices: Sequence[int], wanted: Sequence[str]) -> Rows:
        columns = [column for column in wanted if column in schema.names]
        with _valid(name), parquet.ParquetFile(path, read_dictionary=_packed(path, schema)) as file:
            yield from _rows(file, name, indices, columns)

    return Table(name, tuple(schema.names), count, read, dict(_labels(schema)))


@contextmanager
def _valid(name: str) -> Iterator[None]:
    """Name the file in the error when pyarrow cannot read it; a damaged file fails in many ways."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError, MemoryError) as error:
        raise RecipeError(f"{name}: not a valid .parquet file: {one_line(error)}; fetch or write it again") from None


def _rows(file: Any, name: str, indices: Sequence[int], columns: list[str]) -> Rows:
    """Read rows by index, ascending; row groups that have none of them are passed over."""
    picked = list(indices)
    start = at = 0
    for group in range(file.num_row_groups):
        first, start = start, start + file.metadata.row_group(group).num_rows
        if at == len(picked) or picked[at] >= start:
            continue
        _check_growth(file.metadata.row_group(group), name, columns)
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns):
            here = []
            while at < len(picked) and picked[at] < first + batch.num_rows:
                here.append(picked[at])
                at += 1
            for index, row in zip(here, _taken(batch, [i - first for i in here], name, here), strict=True):
                yield f"{name}, row {index + 1}", {key: _plain(value) for key, value in row.items()}
            first += batch.num_rows
    if at < len(picked):
        raise RecipeError(f"{name}: it holds fewer rows than it says; fetch or write it again")


def _packed(path: Path, schema: pa.Schema) -> list[str]:
    """List the columns of texts that stay packed in memory: each different text once, however often it is there."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = {field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)}
    found = set[str]()
    about = parquet.read_metadata(path)
    for group in range(about.num_row_groups):
        for chunk in (about.row_group(group).column(i) for i in range(about.num_columns)):
            large = chunk.has_dictionary_page and chunk.total_uncompressed_size > LARGE
            if large and chunk.path_in_schema in texts:
                found.add(chunk.path_in_schema)
    return sorted(found)


def _check_growth(group: Any, name: str, columns: Sequence[str]) -> None:
    """Check that what is read of a row group is no bomb: a few bytes that unpack to many.

    Raises:
        RecipeError: it is.
    """
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if chunk.path_in_schema.partition(".")[0] not in columns:
            continue
        size, packed = chunk.total_uncompressed_size, max(chunk.total_compressed_size, 1)
        each = chunk.num_values // max(group.num_rows, 1)
        if (size > MOST and size > GROWTH * packed) or each > text_files.LONGEST // 8:
            raise RecipeError(
                f"{name}: the column {chunk.path_in_schema!r} unpacks from {packed} bytes to {size}, and {each} values "
                f"a row; write the file again without it"
            )


def _taken(batch: pa.RecordBatch, places: list[int], name: str, indices: list[int]) -> Iterator[dict[str, Any]]:
    """Give rows of a batch; one by one where their cells are large.

    Raises:
        RecipeError: a row is longer than any that is read.
    """
    import pyarrow as pa

    packed = [column for column in batch.columns if pa.types.is_dictionary(column.type)]
    if not packed and batch.nbytes < LARGE * 64:
        yield from batch.take(places).to_pylist() if places else ()
        return
    for place, index in zip(places, indices, strict=True):
        row = batch.slice(place, 1)
        size = sum(_size(column, row.column(i)) for i, column in enumerate(batch.columns))
        if size > text_files.LONGEST:
            raise RecipeError(f"{name}, row {index + 1}: more than {text_files.LONGEST >> 20} MiB; is it one row?")
        yield row.to_pylist()[0]


def _size(column: pa.Array, cell: pa.Array) -> int:
    """Count the bytes of a cell."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return int(cell.nbytes)
    text = cell[0]
    return 0 if not text.is_valid else int(cell.dictionary[text.index.as_py()].as_buffer().size)


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
    """List column -> class names, from the metadata that the datasets library leaves in Parquet files."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for column, feature in features.items() if isinstance(features, dict) else ():
        if names := class_names(feature):
            yield column, names


def class_names(feature: Any) -> list[str]:
    """Find the names of a ClassLabel of the datasets library, plain or in lists; empty where there are none.

    Args:
        feature: a feature as the library writes it into JSON, such as {"feature": {"names": [...], "_type":
            "ClassLabel"}, "_type": "List"}.
    """
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, Mapping) and "feature" in feature:
            feature = feature["feature"]
        else:
            break
    names = feature.get("names") if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []
