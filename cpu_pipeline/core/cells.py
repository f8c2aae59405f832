"""What the cell of a data file means: one value, whatever kind of file it comes from, judged by itself alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from cpu_pipeline.core.jsonl import parse

Kind = Literal["text", "label", "number", "json"]
"""What a column holds: text; a label, by name or number, or a list of them; a number; anything that JSON can say."""

WHOLE = re.compile(r"(-?[0-9]{1,18})(\.0+)?")
"""A whole number; with more digits it is a name."""
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
SHOWN = 40
"""Characters of a cell that a message shows."""


def read(column: str, value: Any, kind: Kind, names: Sequence[str] = (), *, numbered: bool = False) -> Any:
    """Bring one cell to the value that it means; files without types (CSV) give the same as those with them.

    A label is text, whatever the file has: only the model tells whether `2` is a name or a number. Below 0 there are
    no names, and it stays a number.

    Args:
        column: its column, for messages.
        value: the text of the cell, or what a typed file holds.
        kind: what the task takes the column for.
        names: names of class numbers, where the file has them; numbers become these names.
        numbered: labels are numbers, as the recipe says; such text becomes a number.

    Raises:
        ValueError: the cell does not say such a value.
    """
    if value is None or kind == "text":
        return value
    if kind == "number":
        return _number(column, value)
    if kind == "label":
        return _label(column, value, names, numbered)
    value = _json(column, value) if isinstance(value, str) else value
    return _named(column, value, names) if names else value


def _number(column: str, value: Any) -> float:
    text = value.strip() if isinstance(value, str) else value
    said = NUMBER.fullmatch(text) is not None if isinstance(text, str) else isinstance(text, (int, float))
    if not said or isinstance(text, bool):
        raise ValueError(f"`{column}` is {_short(value)}, not a number")
    try:
        number = float(text)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"`{column}` is {_short(value)}, not a finite number")
    return number


def _json(column: str, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(
            f"`{column}` is {_short(text)}, not JSON ({error}); in a CSV write lists as JSON: "
            f'["one", "two"], or use JSON lines or Parquet'
        ) from None


def _label(column: str, value: Any, names: Sequence[str], numbered: bool) -> Any:
    if isinstance(value, str) and value.startswith("["):
        value = _list_or_name(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _named(column, value, names) if names else value
    if value in names or not isinstance(value, (str, int, float)) or value in (math.inf, -math.inf) or value != value:
        return value
    whole = WHOLE.fullmatch(str(value))
    if whole is None:
        return str(value)
    number = int(whole[1])
    if names:
        return _named(column, number, names)
    if numbered or number < 0:
        return number
    return whole[1]


def _list_or_name(text: str) -> Any:
    """Read a list that is written as JSON; what is none is a name that begins with a bracket."""
    try:
        found = parse(text)
    except ValueError:
        return text
    return found if isinstance(found, list) else text


def _named(column: str, value: Any, names: Sequence[str]) -> Any:
    """Replace class numbers by their names, in lists, too.

    Raises:
        ValueError: a number has no name.
    """
    if isinstance(value, list):
        return [_named(column, each, names) for each in value]
    if type(value) is not int:
        return value
    if value == -1:
        raise ValueError(f"`{column}` is -1: this split has no labels; choose one that has, such as validation")
    if not 0 <= value < len(names):
        raise ValueError(f"`{column}` is {value}, and the file names {len(names)} classes, from 0")
    return names[value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
