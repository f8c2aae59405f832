"""Strict JSON, and files of JSON lines: rows, predictions, scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cpu_pipeline.core import text_files
from cpu_pipeline.core.errors import RecipeError

ROWS = "rows.jsonl"
COLUMNS = "columns.jsonl"
"""Beside rows: columns of them that are none of the task's own, for gates that divide the rows by them."""
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice in one object")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON; write null, or a number")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
"""JSON as RFC 8259 has it: no NaN, no name twice in one object. Raises ValueError, and RecursionError."""


def parse(text: str) -> Any:
    """Parse strict JSON, without halves of surrogate pairs.

    Raises:
        ValueError: says what is wrong, and at which column of the text.
    """
    try:
        value = DECODER.decode(text)
    except ValueError as error:
        raise ValueError(reason(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_characters(text, value)
    return value


def reason(error: ValueError) -> str:
    """Say in one line what the json module complains of."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return "a number of too many digits" if str(error).startswith("Exceeds the limit") else str(error)


def check_characters(text: str, value: Any) -> None:
    """Check that a value parsed of `text` can be written as UTF-8.

    Raises:
        ValueError: it holds one half of a surrogate pair alone, as a text that was cut within an emoji does.
    """
    if "\\ud" not in text and "\\uD" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise ValueError(f"\\u{half:04x} is half of a character; correct the text, or write \\ufffd") from None


def json_lines(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Read the lines that are not blank, each after its place: `rows.jsonl:7`."""
    for number, line in text_files.lines(path, name):
        if line.strip():
            yield f"{name}:{number}", line


def parse_line(place: str, line: str) -> dict[str, Any]:
    """Parse one line.

    Raises:
        RecipeError: it is not a JSON object; the message names the line.
    """
    try:
        row = parse(line)
    except ValueError as error:
        raise RecipeError(f"{place}: not a JSON line: {error}") from None
    if not isinstance(row, dict):
        raise RecipeError(f"{place}: a line must be a JSON object; a list of rows belongs into a .json file")
    return row


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        RecipeError: a line is not a JSON object; the message names the line.
    """
    return [parse_line(*line) for line in json_lines(path, str(path))]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, keys sorted, so that equal rows are equal bytes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
