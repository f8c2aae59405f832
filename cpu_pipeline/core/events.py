"""What a build reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One step of progress, for people who watch the build."""

    node: str
    """The node's id, or another subject such as "environment `ipex`"."""
    what: str
    """cached, creating (an environment), building, progress, waiting, built, passed, FAILED (a gate), tracing (which
    step lost what a gate asks for), failed (a step), skipped or warning."""
    why: tuple[str, ...] = ()
    """Reasons or details, a line each."""
    seconds: float = 0.0
    """How long it took, where it is `built`."""
    done: int = 0
    """Steps of the build that are settled; of `progress`: how much of the step is done, in units of its own."""
    total: int = 0
    """Steps of the build, or units of the step; 0 where that is not known."""
    left: float | None = None
    """Seconds that the rest of the build takes, by what it took before; None where that is not known."""
    says: str = ""
    """What came out, in a few words, where it is `built` or `cached`."""


Tell = Callable[[Event], None]
"""Called with every event of a build."""
