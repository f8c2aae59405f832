"""How the command line prints: results on stdout, the rest on stderr; live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from cpu_pipeline.core.errors import Interrupted, PipelineError

if TYPE_CHECKING:
    from rich.status import Status

    from cpu_pipeline.cli.json_outputs import ErrorOutput
    from cpu_pipeline.core.events import Event

_STEERING = re.compile(r"\x1b\][^\x07\x1b\n]*\x07?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Escape sequences and control characters, but for tabs and line ends."""


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


def plain(text: str) -> str:
    """Leave out what would steer a terminal: libraries, models and data wrote some of what we print."""
    return _STEERING.sub("", text)


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
    """Print rows in aligned columns, the last one as long as it is."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


class Progress:
    """Tell what a build does: a line per event, and on a terminal what is running now."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.running: dict[str, float] = {}
        self.status: Status | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console

            self.console = Console(stderr=True, highlight=False)
            self.status = self.console.status("planning")
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.what == "building":
            self.running[event.node] = time.monotonic()
        else:
            self.running.pop(event.node, None)
        because = (
            f"  because {'; '.join(event.why)}"
            if event.why and event.what != "warning"
            else "  ".join(["", *event.why])
        )
        took = f"  {event.seconds:.1f} s" if event.what == "built" else ""
        self._line(f"{event.what:9} {event.node}{took}{because}")
        if self.status is not None:
            from rich.markup import escape

            self.status.update(escape("building " + ", ".join(self.running) if self.running else "…"))

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        with patient(sys.stderr):
            if self.status is not None:
                self.console.print(plain(text), markup=False, soft_wrap=True)
            else:
                print(plain(text), file=sys.stderr, flush=True)
