"""Tell what a build does: a line for each event; on a terminal also what runs now, how far it is, and how long yet."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cpu_pipeline.cli.output import patient, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from cpu_pipeline.core.events import Event

PAUSE = 30.0
"""Seconds between two lines about one running step, where there is no terminal: a log of CI is not flooded."""
FRESH = 2
"""How often in a second a terminal is drawn: often enough to see, and no load for what is measured."""


@dataclass
class _Running:
    """A step that runs."""

    began: float
    """As `time.monotonic()` has it; so is the next."""
    told: float
    doing: str = ""
    """How far it is."""


class Progress:
    """Shows the events of a build; to be used as a context."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.running: dict[str, _Running] = {}
        self.began = time.monotonic()
        self.done = self.total = 0
        self.ends: float | None = None
        """When the build will end, by what is known; as `time.monotonic()` has it."""
        self.waiting: dict[str, str] = {}
        self.console: Console | None = None
        self.status: Status | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console

            self.console = Console(stderr=True, highlight=False)
            self.status = self.console.status(_Line(self), refresh_per_second=FRESH)
            self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = time.monotonic()
        self._note(event, now)
        if event.what != "progress":
            self._line(_written(event, self.ends, now))
            return
        running = self.running.setdefault(event.node, _Running(now, now))
        running.doing = _doing(event)
        if self.status is None and now - running.told >= PAUSE:
            running.told = now
            self._line(f"{'running':9} {event.node}  {clock(now - running.began)}{_after(running.doing)}")

    def _note(self, event: Event, now: float) -> None:
        """Keep what the live line shows."""
        if event.what != "progress" and event.total:
            self.done, self.total = event.done, event.total
        if event.left is not None:
            self.ends = now + event.left
        if event.what == "building":
            self.running[event.node] = _Running(now, now)
        elif event.what == "waiting":
            self.waiting[event.node] = "; ".join(event.why)
        if event.what in ("built", "cached", "failed", "skipped"):
            self.running.pop(event.node, None)
        if event.what != "waiting":
            self.waiting.pop(event.node, None)

    def _line(self, text: str) -> None:
        if self.quiet:
            return
        with patient(sys.stderr):
            if self.console is not None:
                self.console.print(plain(text), markup=False, soft_wrap=True)
            else:
                print(plain(text), file=sys.stderr, flush=True)


class _Line:
    """The live line, as it is at the moment when it is drawn."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(plain(now_line(self.shown, time.monotonic())), no_wrap=True, overflow="ellipsis")


def now_line(shown: Progress, now: float) -> str:
    """Write how far a build is: `3 of 21  1:05, about 0:40 left  int8 calibration batches 12 of 128`."""
    if not shown.total:
        return "planning"
    left = "" if shown.ends is None or not shown.running else f", about {clock(max(0.0, shown.ends - now))} left"
    parts = [f"{shown.done} of {shown.total}", f"{clock(now - shown.began)}{left}"]
    parts += [", ".join(f"{name}{' ' if each.doing else ''}{each.doing}" for name, each in shown.running.items())]
    if not shown.running:
        parts += [f"{name} waits: {why}" for name, why in shown.waiting.items()][:1]
    return "  ".join(filter(None, parts))


def clock(seconds: float) -> str:
    """Write a time as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _written(event: Event, ends: float | None, now: float) -> str:
    """Write an event as a line."""
    if event.what in ("passed", "FAILED", "tracing"):
        return "\n".join(f"{event.what:9} {event.node}: {says}" for says in event.why)
    why = ""
    if event.why:
        why = "  ".join(["", *event.why]) if event.what == "warning" else f"  because {'; '.join(event.why)}"
    took = ""
    if event.what == "built":
        left = "" if event.left is None or ends is None or ends - now < 1 else f", about {clock(ends - now)} left"
        took = f"  {event.seconds:.1f} s  ({event.done} of {event.total}{left})"
    says = f"  {event.says}" if event.says else ""
    return f"{event.what:9} {event.node}{took}{says}{why}"


def _doing(event: Event) -> str:
    """Write how far a step is."""
    counted = f"{event.done} of {event.total}" if event.total else ""
    return " ".join(filter(None, (*event.why, counted)))


def _after(doing: str) -> str:
    return f"  {doing}" if doing else ""
