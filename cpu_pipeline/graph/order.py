"""Put nodes into an order that respects every edge."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping

from cpu_pipeline.graph.plan import Node


class Cycle(Exception):
    """Some nodes need each other."""

    def __init__(self, ring: list[str]) -> None:
        super().__init__(" → ".join(ring))
        self.ring = ring
        """The nodes of the cycle, each needed by the next; the first is also the last."""


def in_order(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Sort nodes topologically; keep the order of the file wherever the edges allow it, because people read plans.

    Raises:
        Cycle: some nodes need each other.
    """
    sorter = graphlib.TopologicalSorter({node.id: node.needs for node in nodes.values()})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise Cycle(list(reversed(error.args[1]))) from error
    done: dict[str, Node] = {}
    for name in nodes:
        _add_with_needs(name, nodes, done)
    return done


def _add_with_needs(name: str, nodes: Mapping[str, Node], done: dict[str, Node]) -> None:
    waiting = [name]
    while waiting:
        missing = [need for need in nodes[waiting[-1]].needs if need not in done]
        if missing:
            waiting.extend(reversed(missing))
        else:
            current = waiting.pop()
            done.setdefault(current, nodes[current])
