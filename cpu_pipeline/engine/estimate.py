"""How long the rest of a build takes, by what its steps took the last time."""

from __future__ import annotations

import time
from collections.abc import Collection

from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.local import Store


class Estimate:
    """Adds up what is left of one build; reads each step's last record once, and only when something is built."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._took: dict[str, float | None] = {}
        self._began: dict[str, float] = {}

    def begin(self, node: Node) -> None:
        """Note that a step runs from now on."""
        self._began[node.id] = time.monotonic()

    def end(self, node: Node) -> None:
        """Note that a step is settled."""
        self._began.pop(node.id, None)

    def left(self, pending: Collection[str]) -> float | None:
        """Return the seconds that the running steps and these take; None when one of them was never built before.

        Steps that turn out to be cached take none, so it is too long rather than too short.
        """
        total = 0.0
        for name in (*pending, *self._began):
            took = self._last(name)
            if took is None:
                return None
            spent = time.monotonic() - self._began[name] if name in self._began else 0.0
            total += max(0.0, took - spent)
        return total

    def _last(self, name: str) -> float | None:
        """Return the seconds that a step took the last time it was built under its name."""
        if name not in self._took:
            record = self._store.last(self._plan.label(name))
            seconds = record.run.get("seconds") if record is not None else None
            self._took[name] = float(seconds) if isinstance(seconds, int | float) else None
        return self._took[name]
