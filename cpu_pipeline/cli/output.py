"""How the command line prints: results on stdout, the rest on stderr, and nothing that would steer a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TextIO

from cpu_pipeline.core.errors import Interrupted, PipelineError, TryAgain
from cpu_pipeline.core.files import FULL

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import ErrorOutput

_STEERING = re.compile(r"\x1b\][^\x07\x1b\n]*\x07?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Escape sequences and control characters, but for tabs and line ends."""
_ORDER = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that change the order in which a terminal shows text."""


@contextlib.contextmanager
def patient(stream: TextIO) -> Iterator[None]:
    """Go on when nobody reads `stream` any more (`| head`): the rest goes nowhere, and nothing is wrong."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        hush(stream)


def hush(stream: TextIO) -> None:
    """Let what is written to a stream go nowhere from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def unwritable(stream: TextIO, error: OSError) -> TryAgain | None:
    """Return the error of a stream that can't be written, which then goes nowhere; None where it was something else.

    Args:
        stream: standard output.
        error: what was raised while it was written, or anything else.
    """
    if isinstance(error, BrokenPipeError) or error.filename is not None or error.errno not in FULL:
        return None
    hush(stream)
    return TryAgain(f"standard output: {error.strerror}; free some space or send it elsewhere, then run it again")


class Forgiving(io.FileIO):
    """Standard error on a full disk, or with nobody who reads it: what can't be said is no reason to fail."""

    def write(self, data: Any, /) -> int:
        """Write; where that fails, forget it."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def forgive_stderr() -> None:
    """Let a command go on when its standard error can't be written."""
    with contextlib.suppress(OSError, ValueError):
        raw = io.BufferedWriter(Forgiving(2, "w", closefd=False))
        encoding = sys.stderr.encoding
        sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True, write_through=True)


def plain(text: str) -> str:
    """Leave out what would steer a terminal, and escape marks of order: models and data wrote some of what we print."""
    return _ORDER.sub(lambda mark: f"\\u{ord(mark[0]):04x}", _STEERING.sub("", text))


def fail(error: PipelineError, as_json: bool = False) -> int:
    """Print an error (on stdout too with --json); return its exit code."""
    if as_json:
        payload: ErrorOutput = {"error": type(error).__name__, "exit_code": error.exit_code, "says": str(error)}
        with patient(sys.stdout):
            print(json.dumps(payload, ensure_ascii=False))
    what = "" if isinstance(error, Interrupted) else "error: "
    with patient(sys.stderr):
        print(plain(f"{what}{error}"), file=sys.stderr)
    return error.exit_code


def as_json(value: Any) -> None:
    """Print a result as JSON; a dataclass is an object of its fields."""
    with patient(sys.stdout):
        print(json.dumps(value, indent=1, ensure_ascii=False, default=_jsonable))


def _jsonable(value: Any) -> Any:
    return vars(value) if is_dataclass(value) else str(value)


def columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns, the last one as long as it is, without what would steer a terminal."""
    if not rows:
        return
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())
