"""One walk finds keys: in the order of the plan, as far as inputs are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpu_pipeline import api
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine.keys import Visit, walk
from cpu_pipeline.graph.plan import Node, Plan

RECIPE = {
    "model": {"folder": "model"},
    "task": "text-classification",
    "data": {"calibration": {"file": "rows.jsonl"}},
    "stages": [
        {"id": "float", "use": "export.onnx"},
        {"id": "int8", "use": "quantize.onnx", "with": {"mode": "static"}},
        {"id": "same", "use": "validate.agreement", "from": {"reference": "model"}, "with": {"cosine": 0.9}},
    ],
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "rows.jsonl").write_text('{"id": "1"}\n')
    (tmp_path / "toy.yaml").write_text(json.dumps(RECIPE))
    return api.plan(api.load_recipe(tmp_path / "toy.yaml"))


def made(node: Node, digest: str = "a") -> Artifact:
    return Artifact(node.gives, Path(), digest * 64, {})


def visits(plan: Plan, *unknown: str, digest: str = "a") -> dict[str, Visit]:
    """Walk over a plan where every node but these is found."""
    return {
        visit.node.id: visit for visit in walk(plan, lambda node, _: None if node.id in unknown else made(node, digest))
    }


def test_every_node_is_visited_in_order_with_its_key(plan: Plan) -> None:
    found = visits(plan)
    assert list(found) == list(plan.nodes)
    assert len({visit.keyed.key for visit in found.values() if visit.keyed}) == len(plan.nodes)
    assert all(visit.artifact for visit in found.values())


def test_a_node_without_an_artifact_has_a_key_and_what_reads_it_has_none(plan: Plan) -> None:
    found = visits(plan, "float")
    assert found["float"].keyed is not None and found["float"].artifact is None
    lost = {name for name, visit in found.items() if visit.keyed is None}
    assert lost == {"int8", "same", "predict:int8"} & set(plan.nodes)


def test_a_key_follows_what_was_found_for_its_inputs(plan: Plan) -> None:
    one, two = visits(plan), visits(plan, digest="b")
    same = {name for name in plan.nodes if one[name].keyed == two[name].keyed}
    assert same == {name for name, node in plan.nodes.items() if not node.reads}


def test_a_node_is_looked_up_when_it_is_reached_and_not_before(plan: Plan) -> None:
    asked: list[str] = []

    def find(node: Node, _: str) -> Artifact:
        asked.append(node.id)
        return made(node)

    for number, visit in enumerate(walk(plan, find), 1):
        assert asked[-1] == visit.node.id and len(asked) == number
