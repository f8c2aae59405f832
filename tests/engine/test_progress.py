"""What a build knows of its nodes: which wait, which are skipped, which are built again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core.errors import StageFailed, TryAgain
from cpu_pipeline.core.events import Event
from cpu_pipeline.engine import keys
from cpu_pipeline.engine.estimate import Estimate
from cpu_pipeline.engine.keys import Keyed
from cpu_pipeline.engine.progress import Progress
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.store.record import Action, StoredArtifact


class Silent:
    """A stage that judges nothing."""

    def parse_facts(self, facts: Any) -> Any:
        return facts

    def judge(self, facts: Any) -> list[Any]:
        return []

    def notices(self, facts: Any) -> list[str]:
        return []


class Unknown(Estimate):
    """Of a store that remembers nothing."""

    def __init__(self) -> None:
        self._began = {}

    def left(self, pending: Any) -> float | None:
        return None


def node(name: str, *inputs: str, after: tuple[str, ...] = ()) -> Node:
    return Node(name, "toy", Silent(), {f"in{i}": source for i, source in enumerate(inputs)}, after=after)  # type: ignore[arg-type]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def progress(events: list[Event], monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Two chains, a to c and x, and y after both."""
    monkeypatch.setattr("cpu_pipeline.engine.progress.key_of", fake_key)
    nodes = {n.id: n for n in (node("a"), node("b", "a"), node("c", "b"), node("x"), node("y", "c", after=("x",)))}
    return Progress(type("Plan", (), {"nodes": nodes})(), events.append, Unknown())


def fake_key(plan: Any, node: Node, known: Any) -> Keyed:
    needed = {"node": node.id, "inputs": [known[name].digest for name in node.reads]}
    return Keyed(keys.digest_json(needed), needed)


def stored(name: str) -> StoredArtifact:
    return StoredArtifact.of(Action({}, "toy", name * 64, {}, {}, {}), Path(name))


def settle(progress: Progress, *names: str) -> None:
    for name in names:
        progress.settle(progress.plan.nodes[name], stored(name[0]))


def test_a_node_is_ready_when_all_that_it_needs_is_built(progress: Progress) -> None:
    nodes = progress.plan.nodes
    assert progress.ready(nodes["a"]) and not progress.ready(nodes["b"]) and not progress.ready(nodes["y"])
    settle(progress, "a", "b", "c")
    assert progress.ready(nodes["b"]) and not progress.ready(nodes["y"])
    settle(progress, "x")
    assert progress.ready(nodes["y"]) and list(progress.pending) == ["y"]
    assert set(progress.result.records) == set(progress.result.keys) == {"a", "b", "c", "x"}


def test_what_needs_a_failed_node_is_skipped_and_nothing_else(progress: Progress, events: list[Event]) -> None:
    nodes = progress.plan.nodes
    progress.fail(nodes["a"], StageFailed("no luck\nmore"))
    assert progress.failed_need(nodes["b"]) == "a" and progress.failed_need(nodes["x"]) is None
    progress.skip(nodes["b"], "a")
    assert progress.failed_need(nodes["c"]) == "b" and progress.failed_need(nodes["y"]) is None
    assert [(event.node, event.what) for event in events] == [("a", "failed"), ("b", "skipped")]
    assert events[0].why == ("step `a` (toy): no luck",)


def test_what_may_succeed_later_ends_the_build(progress: Progress, events: list[Event]) -> None:
    progress.fail(progress.plan.nodes["x"], TryAgain("the disk is full"))
    assert not progress.pending
    assert [event.node for event in events if event.what == "skipped"] == ["a", "b", "c", "y"]
    assert isinstance(progress.result.errors["x"], TryAgain)


def test_waiting_is_told_once_and_again_after_a_while(
    progress: Progress, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        progress.wait(progress.plan.nodes["a"], "another build is making it")
    assert len(events) == 1
    monkeypatch.setattr("cpu_pipeline.engine.progress.REMIND", -1.0)
    progress.wait(progress.plan.nodes["a"], "another build is making it")
    assert len(events) == 2


def test_events_say_how_far_the_build_is(progress: Progress, events: list[Event]) -> None:
    nodes = progress.plan.nodes
    progress.start(nodes["a"], ["never built"])
    settle(progress, "a")
    progress.news(nodes["a"], "built", seconds=1.0)
    progress.fail(nodes["b"], StageFailed("no"))
    progress.news(nodes["x"], "building")
    assert [(event.what, event.done, event.total) for event in events if event.total] == [
        ("building", 0, 5), ("built", 1, 5), ("building", 2, 5),
    ]  # fmt: skip


def test_a_silent_step_is_told_of_now_and_then(
    progress: Progress, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = progress.plan.nodes["a"]
    progress.tick([node])
    progress.tick([node])
    assert not events
    monkeypatch.setattr("cpu_pipeline.engine.progress.QUIET", -1.0)
    progress.tick([node])
    progress.advance(node, "rows", 3, 8)
    progress.tick([node])
    assert [(event.why, event.done, event.total) for event in events] == [
        ((), 0, 0),
        (("rows",), 3, 8),
        (("rows",), 3, 8),
    ]


def test_a_damaged_node_is_pending_again_with_keys_computed_again(progress: Progress, events: list[Event]) -> None:
    nodes = progress.plan.nodes
    settle(progress, "a")
    before = progress.keyed(nodes["b"]).key
    progress.build_again(["a"])
    assert list(progress.pending) == ["a", "b", "c", "x", "y"] and not progress.result.artifacts
    assert [(event.node, event.what) for event in events] == [("a", "warning")]
    progress.settle(nodes["a"], stored("z"))
    assert progress.keyed(nodes["b"]).key != before
