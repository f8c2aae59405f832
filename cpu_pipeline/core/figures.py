"""Measured figures as values with a unit, for every kind of report; nothing here is Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpu_pipeline.core.text import size

BYTES = "bytes"
"""Unit that is written beside each number, scaled (KiB, MiB); other units stand in a column's heading."""


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with `digits` decimals; `NaN` where there is none."""
    return "NaN" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class Quantity:
    """A measured number with its unit, and the interval that bounds it where one is known."""

    value: float | None
    """None where the measurement gave no number (NaN)."""
    unit: str = ""
    """Such as `ms`, `s`, `sequences/s` or `bytes`; empty for shares and ratios."""
    low: float | None = None
    high: float | None = None
    digits: int = 2
    """Decimals that are shown."""

    def __str__(self) -> str:
        """Write the number, without its unit (bytes: with), and its interval in parentheses."""
        if self.low is None and self.high is None:
            return self._write(self.value)
        return f"{self._write(self.value)} ({self._write(self.low)} to {self._write(self.high)})"

    def _write(self, value: float | None) -> str:
        return size(value) if self.unit == BYTES and value is not None else number(value, self.digits)


@dataclass(frozen=True)
class Cell:
    """One figure of a table, and the column that it belongs to."""

    name: str
    """What was measured, such as `median`."""
    quantity: Quantity
    condition: str = ""
    """Under what it was measured, such as `batch 1`; figures under different conditions are different columns."""
    interval_of: str = ""
    """What the interval bounds, where that is not the number itself: `its difference`."""

    @property
    def heading(self) -> str:
        """Name the column: what was measured, in which unit, under which condition."""
        unit = "" if self.quantity.unit == BYTES else self.quantity.unit
        about = f" (interval of {self.interval_of})" if self.interval_of else ""
        return " ".join(filter(None, (self.name, unit))) + about + (f", {self.condition}" if self.condition else "")


@dataclass(frozen=True)
class Table:
    """Figures in rows, each with a name; every row has the same columns."""

    kind: str
    """What a row is about: heading of the first column."""
    rows: Mapping[str, Sequence[Cell]]
    """Name of a row -> its cells, in order."""

    @property
    def headings(self) -> list[str]:
        """List every column's heading, that of the rows' names first."""
        return [self.kind, *dict.fromkeys(cell.heading for cells in self.rows.values() for cell in cells)]


@dataclass(frozen=True)
class Note:
    """A sentence or two beside the figures, as plain text."""

    text: str
    warning: bool = False
    """Whether a reader must not miss it."""
