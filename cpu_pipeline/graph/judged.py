"""Which outputs a gate judges against their float model, and which gates compare a model with itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cpu_pipeline.graph.plan import NOT_MODELS, Node

SIDES = ("candidate", "reference")


def side(nodes: Mapping[str, Node], gate: Node, name: str) -> str | None:
    """Name the model that a gate has as candidate or reference, behind its predictions; None where it has none."""
    source = gate.inputs.get(name)
    while source is not None and nodes[source].gives == "predictions":
        source = next(iter(nodes[source].inputs.values()))
    return source


LOSSLESS = frozenset({"load", "export", "fuse", "compile"})
"""First parts of the names of stages whose models answer as the model before does, in the numbers that it uses."""


def with_itself(nodes: Mapping[str, Node]) -> list[Node]:
    """List the gates whose candidate is their reference, or is made as it is: they pass whatever was built."""
    return [node for node in gates(nodes) if _same(nodes, *(side(nodes, node, name) for name in SIDES))]


def unjudged(nodes: Mapping[str, Node], outputs: Sequence[str]) -> list[str]:
    """List the outputs whose answers no gate judges against a float model, directly or by way of another model."""
    edges = [
        (side(nodes, node, "candidate"), side(nodes, node, "reference"))
        for node in gates(nodes)
        if node.stage.judges_answers
    ]
    judged = {candidate for candidate, reference in edges if _is_float(nodes, reference)}
    while more := {candidate for candidate, reference in edges if reference in judged} - judged:
        judged |= more
    return [name for name in outputs if name not in judged]


def gates(nodes: Mapping[str, Node]) -> Iterable[Node]:
    """Name the steps that compare a candidate with a reference."""
    return [node for node in nodes.values() if node.inputs.keys() >= set(SIDES)]


def _same(nodes: Mapping[str, Node], one: str | None, other: str | None) -> bool:
    """Say whether two nodes give the same: they are one, or equal steps of the same."""
    if one is None or other is None or one == other:
        return one == other
    first, second = nodes[one], nodes[other]
    if first.use != second.use or first.inputs.keys() != second.inputs.keys() or first.data != second.data:
        return False
    # With the options that no key holds: in those of a fetch stands which folder it is.
    equal = first.stage == second.stage
    return equal and all(_same(nodes, source, second.inputs[name]) for name, source in first.inputs.items())


def _is_float(nodes: Mapping[str, Node], name: str | None) -> bool:
    """Say whether no step on the way to a model quantized, pruned or trained it."""
    waiting, seen = [name] if name is not None else [], set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        node = nodes[one]
        if node.gives in NOT_MODELS:
            continue
        if node.stage.quantizes or node.use.partition(".")[0] not in LOSSLESS:
            return False
        waiting += node.inputs.values()
    return bool(seen)
