"""CSV as RFC 4180 has it: every cell is text. What a cell means, the task says."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from cpu_pipeline.core import text_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.tables._open_quote import rows_within, swallowed
from cpu_pipeline.core.tables._table import Rows, Table, twice

SEPARATORS = {",": "commas", ";": "`;`", "\t": "tabs", "|": "`|`"}
"""What separates cells in the wild, as messages call it."""
SUSPECTS = 20
"""Texts whose lines look like rows that are compared with the other rows."""
LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")


def open_csv(path: Path, name: str, separator: str) -> Table:
    """Open a file whose first line names the columns, and check the number of cells of each row.

    Raises:
        RecipeError: the message names file and line.
    """
    records = partial(_records, path, name, separator)
    lines = records()
    head = next(lines, None)
    if head is None:
        raise RecipeError(f"{name}: it is empty; its first line must name the columns")
    columns = [cell.strip() for cell in head[2]]
    _check_head(name, columns, separator)
    count = 0
    long: list[tuple[int, int, list[list[str]]]] = []
    for line, last, cells in lines:
        count += 1
        if last > line and len(long) < SUSPECTS and (within := rows_within(cells, separator)):
            long.append((line, last, within))
        if len(cells) != len(columns):
            raise RecipeError(
                f"{name}:{line}: {len(cells)} cells, and the first line names {len(columns)} columns; "
                f'put a text with {SEPARATORS[separator]}, quotes or line ends into quotes: "..."'
            )
    if long:
        _check_quotes(name, long, lambda: (cells for line, last, cells in islice(records(), 1, None) if line == last))

    def read(indices: Sequence[int], wanted: Sequence[str]) -> Rows:
        places = [(column, columns.index(column)) for column in wanted if column in columns]
        picked = iter(indices)
        index = next(picked, None)
        rows = records()
        next(rows)
        for number, (line, _, cells) in enumerate(rows):
            if index is None:
                return
            if number == index:
                yield f"{name}:{line}", {column: cells[place] for column, place in places}
                index = next(picked, None)

    return Table(name, tuple(column for column in columns if column), count, read)


def _records(path: Path, name: str, separator: str) -> Iterator[tuple[int, int, list[str]]]:
    """Read the rows that are not blank, the head among them, each with the numbers of its first and last line."""
    csv.field_size_limit(text_files.LONGEST)
    reader = csv.reader(_lines(path, name), delimiter=separator, strict=True)
    width = 0
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise RecipeError(f"{name}:{line}: {_reason(error)}") from None
        if cells is None:
            return
        blank = not cells or (width > 1 and len(cells) == 1 and not cells[0].strip())
        if not blank:
            width = width or len(cells)
            yield line, reader.line_num, cells


def _lines(path: Path, name: str) -> Iterator[str]:
    """Read lines, ended by a line feed, a carriage return, or both."""
    for _, line in text_files.lines(path, name):
        yield from [part for part in LINE.findall(line) if part] if "\r" in line else (line,)


def _reason(error: csv.Error) -> str:
    says = str(error)
    if "unexpected end" in says:
        return "a quote opens in this row and never closes; close it"
    if "field larger" in says:
        return f"a cell of more than {text_files.LONGEST >> 20} Mi characters; perhaps a quote never closes"
    if "expected after" in says:
        return 'text follows a closing quote; write a quote inside of quotes twice: "say ""yes"" twice"'
    return f"not valid CSV ({says})"


def _check_quotes(
    name: str, long: Sequence[tuple[int, int, list[list[str]]]], others: Callable[[], Iterable[list[str]]]
) -> None:
    """Check that no text of several lines is rows that a quote has swallowed.

    Args:
        name: the file.
        long: first line, last line and `rows_within` of each such text.
        others: gives the rows of one line.

    Raises:
        RecipeError: one is.
    """
    for first, last, rows in long:
        if swallowed(rows, others()):
            raise RecipeError(
                f"{name}:{first}: a quote opens in this row and closes in line {last}, and each line between looks "
                f'like a row of its own: close the quote, or write a quote that is meant twice (""); if it is one '
                f"text, write the file as .jsonl"
            )


def _check_head(name: str, columns: list[str], separator: str) -> None:
    """Check the first line.

    Raises:
        RecipeError: another separator divides it better, or it names a column twice.
    """
    for other, called in SEPARATORS.items():
        if other != separator and sum(column.count(other) for column in columns) >= len(columns):
            say = {",": "end its name in .csv", "\t": "end its name in .tsv"}.get(other, "write commas")
            raise RecipeError(f"{name}: its cells are separated by {called}, not by {SEPARATORS[separator]}; {say}")
    if (column := twice([column for column in columns if column])) is not None:
        raise RecipeError(
            f"{name}:1: the column {column!r} is there twice; rename one (the first line names the columns)"
        )
