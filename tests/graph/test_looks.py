"""A gate that looks in parts has predictions of its own for each part, and shares nothing that it need not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpu_pipeline import api
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine import keys
from cpu_pipeline.graph import variants
from cpu_pipeline.graph.plan import Plan

RECIPE = """
model: {folder: model}
task: question-answering
data:
  validation: {file: rows.jsonl}
stages:
  - {id: float, use: export.onnx}
  - {id: one, use: validate.accuracy, from: {reference: model}, with: {max_drop: 0.01, on_inconclusive: more%s}}
  - {id: two, use: validate.accuracy, from: {reference: model}, with: {max_drop: 0.02, on_inconclusive: more}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return _planned(tmp_path)


def _planned(tmp_path: Path, options: str = "") -> Plan:
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE % options)
    return api.plan(api.load_recipe(path))


def test_parts_and_looks_are_chained(plan: Plan) -> None:
    assert plan.nodes["one"].inputs == {
        "candidate": "predict:one:4-of-4:float",
        "reference": "predict:one:4-of-4:model",
    }
    assert plan.nodes["predict:one:1-of-4:float"].inputs == {"model": "float"}
    assert plan.nodes["predict:one:3-of-4:model"].inputs == {
        "model": "model",
        "before": "predict:one:2-of-4:model",
        "decision": "one:look-2",
    }
    assert plan.nodes["one:look-2"].inputs == {
        "candidate": "predict:one:2-of-4:float",
        "reference": "predict:one:2-of-4:model",
    }
    assert plan.nodes["one:look-2"].gives == "decision" and "one:look-4" not in plan.nodes
    assert plan.outputs == ("float",)


def test_gates_that_have_not_decided_share_what_is_predicted(plan: Plan) -> None:
    """Equal decisions are equal bytes: the reference is predicted once for both gates."""
    known = {name: Artifact(node.gives, Path(), f"of {node.gives}", {}) for name, node in plan.nodes.items()}
    for part in range(1, 5):
        one, two = (
            keys.key_of(plan, plan.nodes[f"predict:{gate}:{part}-of-4:model"], known).key for gate in ("one", "two")
        )
        assert one == two
    looks = {keys.key_of(plan, plan.nodes[f"{gate}:look-1"], known).key for gate in ("one", "two")}
    assert len(looks) == 2, "they ask for other bounds"


def test_predictions_of_all_rows_keep_their_key(plan: Plan) -> None:
    from cpu_pipeline.stages.predict import Predict

    assert Predict().model_dump(mode="json") == {}
    assert Predict(part=1, parts=4).model_dump(mode="json") == {"part": 1, "parts": 4, "cluster": None}


def test_a_gate_that_is_skipped_takes_its_parts_along(plan: Plan) -> None:
    left = variants.skipping(plan, ["one"]).nodes
    assert not [name for name in left if ":one:" in name or name.startswith("one")]
    assert "predict:two:4-of-4:model" in left


def test_columns_of_clusters_and_slices_come_with_the_rows(tmp_path: Path) -> None:
    plain = _planned(tmp_path).nodes["data.validation"].stage
    assert "beside" not in plain.model_dump(mode="json")
    options = ", cluster: article, slices: [{column: language, max_drop: 0.1}, {column: question}, {by: length}]"
    asked = _planned(tmp_path, options)
    assert asked.nodes["data.validation"].stage.model_dump()["beside"] == ("article", "language")
    assert asked.nodes["predict:one:1-of-4:model"].stage.model_dump()["cluster"] == "article"
    assert asked.nodes["predict:two:1-of-4:model"].stage.model_dump()["cluster"] == "context"
