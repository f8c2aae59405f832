"""What every data file is opened as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Rows, each after its place for messages: `train.jsonl:7`, or `train.parquet, row 7`."""


@dataclass(frozen=True)
class Table:
    """One data file; its rows are read when they are asked for, and never all held at once."""

    name: str
    columns: tuple[str, ...]
    count: int
    """Rows in it."""
    read: Callable[[Sequence[int], Sequence[str]], Rows]
    """Read rows by index, ascending, with these columns; a row lacks the columns that it has not."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Column -> names of its class numbers, where the file has them."""


def twice(names: Sequence[str]) -> str | None:
    """Return the first name that is there twice."""
    return next((name for name in names if names.count(name) > 1), None)
