"""The nodes of a gate that looks at the rows in parts: predict one, look, predict the next only if that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cpu_pipeline import stages
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.tasks._base import Task

PREDICT, LOOK = "predict", "validate.look"


def in_parts(gate: Node, models: Mapping[str, str], predict: Node, task: Task | None) -> dict[str, Node]:
    """Make the nodes of a gate that looks more than once, itself included.

    Args:
        gate: the gate; its inputs are made anew.
        models: input of the gate -> the model that it judges.
        predict: how a model is predicted: rows, order, place in the recipe.
        task: the recipe's task.

    Returns:
        Node id -> node. Each part of the rows is predicted by a node of its own, which takes over what the one before
        has, and adds nothing once a look has decided. What it is keyed by is whether that was so, and nothing else.
    """
    parts = gate.stage.looks()
    column = gate.stage.cluster_column(task)  # type: ignore[attr-defined]  # a stage with looks has one
    found: dict[str, Node] = {}
    sides: dict[str, str] = {}
    for part in range(1, parts + 1):
        before = dict(sides)
        for side, model in models.items():
            name = f"{PREDICT}:{gate.id}:{part}-of-{parts}:{model}"
            inputs = {"model": model}
            if part > 1:
                inputs |= {"before": before[side], "decision": _look(gate, part - 1)}
            options = {"part": part, "parts": parts, "cluster": column}
            found[name] = replace(predict, id=name, stage=stages.get(PREDICT)(**options), inputs=inputs)
            sides[side] = name
        if part < parts:
            options = {**gate.stage.model_dump(mode="json", exclude_unset=True), "look": part}
            stage = stages.get(LOOK)(**options)
            name = _look(gate, part)
            found[name] = replace(gate, id=name, use=LOOK, stage=stage, inputs=dict(sides))
    found[gate.id] = replace(gate, inputs=dict(sides))
    return found


def _look(gate: Node, number: int) -> str:
    return f"{gate.id}:look-{number}"
