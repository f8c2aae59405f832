"""Rows in JSON: one object a line, a list of objects, or SQuAD's `data`; parsed strictly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cpu_pipeline.core import text_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import json_lines, parse, parse_line
from cpu_pipeline.core.tables import _json_stream
from cpu_pipeline.core.tables._table import Rows, Table

Found = Iterable[tuple[str, str | dict[str, Any]]]
"""Rows, parsed or not, each after its place."""


def open_jsonl(path: Path, name: str) -> Table:
    """Open a file with one object a line, and parse every line of it.

    Raises:
        RecipeError: a line is not a JSON object; the message names it.
    """
    return _table(name, partial(json_lines, path, name))


def open_json(path: Path, name: str) -> Table:
    """Open a file with one object a line, with a list of objects, or with an object whose `data` is such a list.

    Raises:
        RecipeError: it is something else; the message names row or line.
    """
    return _table(name, partial(json_lines if _has_lines(path, name) else _json_stream.rows, path, name))


def _has_lines(path: Path, name: str) -> bool:
    """Say whether each line is an object by itself; one object alone is none of them when its `data` is a list."""
    begin = next((piece.strip() for _, piece in text_files.pieces(path, name) if piece.strip()), "")
    if not begin.startswith("{"):
        return not begin
    try:
        first = [line.strip() for _, line in islice(json_lines(path, name), 2)]
        return first[0].endswith("}") and (len(first) > 1 or not isinstance(parse(first[0]).get("data"), list))
    except RecipeError:  # a very long line; what else is wrong is found again
        return False
    except ValueError:
        return True


def _table(name: str, found: Callable[[], Found]) -> Table:
    columns: dict[str, None] = {}
    count = 0
    for place, row in found():
        columns |= dict.fromkeys(_parsed(place, row))
        count += 1

    def read(indices: Sequence[int], wanted: Sequence[str]) -> Rows:
        picked = iter(indices)
        index = next(picked, None)
        for number, (place, row) in enumerate(found()):
            if index is None:
                return
            if number == index:
                parsed = _parsed(place, row)
                yield place, {key: parsed[key] for key in wanted if key in parsed}
                index = next(picked, None)

    return Table(name, tuple(columns), count, read)


def _parsed(place: str, row: str | dict[str, Any]) -> dict[str, Any]:
    return parse_line(place, row) if isinstance(row, str) else row
