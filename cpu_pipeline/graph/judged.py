"""Which outputs a gate judges against their float model, and which gates compare a model with itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cpu_pipeline.graph.plan import Node


def side(nodes: Mapping[str, Node], gate: Node, name: str) -> str | None:
    """Name the model that a gate has as candidate or reference, behind its predictions; None where it has none."""
    source = gate.inputs.get(name)
    while source is not None and nodes[source].gives == "predictions":
        source = next(iter(nodes[source].inputs.values()))
    return source


def with_itself(nodes: Mapping[str, Node]) -> list[Node]:
    """List the gates whose candidate is their reference: they pass whatever was built."""
    return [node for node in gates(nodes) if side(nodes, node, "candidate") == side(nodes, node, "reference")]


def unjudged(nodes: Mapping[str, Node], outputs: Sequence[str]) -> list[str]:
    """List the outputs whose answers no gate judges against a float model."""
    judged = {
        side(nodes, node, "candidate")
        for node in gates(nodes)
        if node.stage.judges_answers and _is_float(nodes, side(nodes, node, "reference"))
    }
    return [name for name in outputs if name not in judged]


def gates(nodes: Mapping[str, Node]) -> Iterable[Node]:
    """Name the steps that compare a candidate with a reference."""
    return [node for node in nodes.values() if {"candidate", "reference"} <= node.inputs.keys()]


def _is_float(nodes: Mapping[str, Node], name: str | None) -> bool:
    """Say whether nothing on the way to a model quantized it."""
    waiting, seen = [name] if name is not None else [], set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if nodes[one].stage.quantizes:
            return False
        waiting += nodes[one].inputs.values()
    return bool(seen)
