"""What a build would do with each step, and why. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.keys import needs, reasons
from cpu_pipeline.engine.requirements import environments_of
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.local import Store


@dataclass(frozen=True)
class Outlook:
    """What a build would do with one node."""

    node: Node
    state: str
    """kept, build, or depends (on whether another step's outcome changes)."""
    why: tuple[str, ...] = ()


def look(plan: Plan, store: Store) -> Iterator[Outlook]:
    """Say what a build would keep and what it would make, and why. Writes nothing."""
    known: dict[str, Artifact] = {}
    changed: set[str] = set()
    for node in plan.nodes.values():
        before = store.last(f"{plan.name}/{node.id}")
        waits = [n for n in (*node.inputs.values(), *node.data.values()) if n in changed]
        if waits:
            changed.add(node.id)
            if before is None:
                yield Outlook(node, "build", ("never built",))
            else:
                yield Outlook(node, "depends", tuple(f"on what `{n}` becomes" for n in waits))
            continue
        needed = needs(plan, node, known)
        key = digest_json(needed)
        if (found := store.foresee(key)) is not None and node.fits(found):
            known[node.id] = found
            yield Outlook(node, "kept", () if store.find(key) is not None else ("in the remote store",))
        else:
            changed.add(node.id)
            yield Outlook(node, "build", reasons(before, needed))


def lacking(plan: Plan, store: Store) -> list[str]:
    """Name the environments that a build would take and that are not made."""
    wanted = {
        name for seen in look(plan, store) if seen.state != "kept"
        for name in environments_of(seen.node.stage, plan.formats(seen.node))
    }  # fmt: skip
    return sorted(name for name in wanted - {DEFAULT} if not environments.read(name).ready)
