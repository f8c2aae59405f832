"""Predict what a build would do with each step, and why. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.keys import reasons, walk
from cpu_pipeline.engine.requirements import environments_of
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.local import Store

State = Literal["cached", "build", "depends"]


@dataclass(frozen=True)
class Outlook:
    """What a build would do with one node."""

    node: Node
    state: State
    """cached, build, or depends (on whether another step's output changes)."""
    why: tuple[str, ...] = ()
    artifact: Artifact | None = None
    """What the store has of it."""


def look(plan: Plan, store: Store) -> Iterator[Outlook]:
    """Yield, for each node in order, whether a build would reuse or build it, and why. Writes nothing."""
    remote = set[str]()
    unknown = set[str]()

    def find(node: Node, key: str) -> Artifact | None:
        if (found := store.find(key)) is None:
            found = store.find_remote(key)
            remote.add(node.id)
        return found if found is not None and node.fits(found) else None

    for node, keyed, found in walk(plan, find):
        if found is not None:
            why = ("in the remote store",) if node.id in remote else ()
            yield Outlook(node, "cached", why, None if node.id in remote else found)
            continue
        before = store.last(plan.label(node.id))
        if keyed is None and before is not None:
            yield Outlook(node, "depends", tuple(f"on what `{n}` becomes" for n in node.reads if n in unknown))
        else:
            yield Outlook(node, "build", reasons(before, keyed.ingredients if keyed is not None else {}))
        unknown.add(node.id)


def lacking(plan: Plan, store: Store) -> list[str]:
    """Name the environments that a build would need and that are not installed."""
    wanted = {
        name for seen in look(plan, store) if seen.state != "cached"
        for name in environments_of(seen.node.stage, plan.formats(seen.node))
    }  # fmt: skip
    return sorted(name for name in wanted - {DEFAULT} if not environments.get(name).ready)
