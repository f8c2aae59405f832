"""How long a build still takes follows from what its steps took the last time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cpu_pipeline.engine import estimate
from cpu_pipeline.engine.estimate import Estimate


class Remembering:
    """A store that knows how long steps took."""

    def __init__(self, **seconds: Any) -> None:
        self.seconds, self.asked = seconds, list[str]()

    def last(self, label: str) -> Any:
        self.asked.append(label)
        took = self.seconds.get(label.partition("/")[2])
        return None if took is None else SimpleNamespace(run={"seconds": took})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    return now


def made(store: Remembering) -> Estimate:
    plan = SimpleNamespace(label=lambda name: f"toy/{name}")
    return Estimate(plan, store)  # type: ignore[arg-type]


def test_what_waits_and_the_rest_of_what_runs_are_added(clock: list[float]) -> None:
    known = made(Remembering(a=10.0, b=5.0, c=2))
    known.begin(SimpleNamespace(id="a"))  # type: ignore[arg-type]
    assert known.left(["b", "c"]) == 17.0
    clock[0] = 4.0
    assert known.left(["b", "c"]) == 13.0
    clock[0] = 40.0
    assert known.left(["c"]) == 2.0, "what takes longer than the last time ends at any moment"
    known.end(SimpleNamespace(id="a"))  # type: ignore[arg-type]
    assert known.left([]) == 0.0


def test_nothing_is_guessed_of_a_step_that_was_never_built(clock: list[float]) -> None:
    assert made(Remembering(a=10.0)).left(["a", "b"]) is None
    assert made(Remembering(a="soon")).left(["a"]) is None


def test_each_record_is_read_once_and_only_when_asked(clock: list[float]) -> None:
    store = Remembering(a=1.0)
    known = made(store)
    assert store.asked == []
    known.left(["a"])
    known.left(["a"])
    assert store.asked == ["toy/a"]
