"""How the command line prints: results on stdout, the rest on stderr; live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cpu_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from rich.status import Status

    from cpu_pipeline.engine import Event


def fail(error: PipelineError, as_json: bool = False) -> int:
    """Print an error (on stdout too when JSON is asked for); return its exit code."""
    if as_json:
        said = {"error": type(error).__name__, "exit_code": error.exit_code, "says": str(error)}
        print(json.dumps(said, ensure_ascii=False))
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code


def as_json(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns, the last one as long as it is."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]).rstrip())


class Progress:
    """Tell what a build does: a line per event, and on a terminal what is running now and for how long."""

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
        if self.status is not None:
            self.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
