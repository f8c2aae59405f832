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
    """cached, creating (an environment), building, waiting, built, failed, skipped or warning."""
    why: tuple[str, ...] = ()
    """Reasons or details, a line each."""
    seconds: float = 0.0
    """How long it took, where it is `built`."""


Tell = Callable[[Event], None]
"""Called with every event of a build."""
