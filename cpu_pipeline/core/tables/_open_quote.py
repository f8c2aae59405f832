"""Tell a quote that was left open, which swallows rows, from a text of several lines.

CSV has no mark for it: a quote that opens in one row and closes in a later one is valid. What lies between gives it
away: each line, taken as a row of its own, has as many cells as the others, and each cell is of its column's kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

KINDS = 50
"""Different values of a column up to which they are classes, such as labels."""
MANY = 5
"""Lines that look like rows in a file without any other row to compare with."""
SHOWN = 2000
"""Rows of one text that are compared."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
END = re.compile(r"\r\n|\n|\r")


def rows_within(cells: Sequence[str], separator: str) -> list[list[str]]:
    """Take a row apart in which a cell has several lines, as if its quotes were not there.

    Args:
        cells: the row.
        separator: what separates cells.

    Returns:
        A row for each line, all of the same number of cells; empty where the lines are no such rows.
    """
    long = [place for place, cell in enumerate(cells) if "\n" in cell or "\r" in cell]
    if len(long) != 1 or len(cells) < 2:
        return []
    [place] = long
    lines = END.split(cells[place])
    before, after = place, len(cells) - 1 - place
    counts = [line.count(separator) for line in lines]
    middle = len(cells) - 1
    if (counts[0], counts[-1]) != (after, before) or any(count != middle for count in counts[1:-1]):
        return []
    rows = [line.split(separator) for line in lines[:SHOWN]]
    rows[0] = [*cells[:place], *rows[0]]
    if len(lines) <= SHOWN:
        rows[-1] = [*rows[-1], *cells[place + 1 :]]
    return rows if all(len(row) == len(cells) for row in rows) else []


def swallowed(rows: Sequence[Sequence[str]], others: Iterable[Sequence[str]]) -> bool:
    """Say whether `rows_within` a text are rows like the others of the file."""
    if not rows:
        return False
    columns = [_Column() for _ in rows[0]]
    for row in others:
        for column, cell in zip(columns, row, strict=True):
            column.add(cell)
    if not columns[0].count:
        return len(rows) >= MANY and all(cell and cell == cell.strip() for row in rows for cell in row)
    return all(column.takes(cell) for row in rows for column, cell in zip(columns, row, strict=True))


@dataclass
class _Column:
    """What the cells of a column have in common."""

    count: int = 0
    values: set[str] = field(default_factory=set)
    """Different values, one more than `KINDS` at most."""
    empty: bool = False
    numbers: bool = True
    spaced: bool = False

    def add(self, cell: str) -> None:
        """Look at one more cell."""
        self.count += 1
        if len(self.values) <= KINDS:
            self.values.add(cell)
        self.empty = self.empty or not cell
        self.numbers = self.numbers and NUMBER.fullmatch(cell) is not None
        self.spaced = self.spaced or cell != cell.strip()

    def takes(self, cell: str) -> bool:
        """Say whether a cell is like those of this column."""
        if len(self.values) <= min(KINDS, self.count // 2):
            return cell in self.values
        if self.numbers:
            return NUMBER.fullmatch(cell) is not None
        return (self.empty or bool(cell)) and (self.spaced or cell == cell.strip())
