"""What a build reports while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something a person watching the build would like to see."""

    node: str
    what: str
    """cached, creating (an environment), building, waiting, built, failed, skipped or warning."""
    why: tuple[str, ...] = ()
    seconds: float = 0.0


Tell = Callable[[Event], None]
"""Called with every event of a build."""
