"""What a node takes for the output of its own stage, when a record says so."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.stages.validate.accuracy import ValidateAccuracy
from cpu_pipeline.stages.validate.agreement import ValidateAgreement
from cpu_pipeline.stages.validate.latency import ValidateLatency

SIDES = {"candidate": "int8", "reference": "model"}
COUNTS = {"missing": 0, "unknown": 0, "nan": 0}
METRIC = {"candidate": 0.8, "reference": 0.9, "difference": -0.1, "low": None, "high": 0.1}
SPEED = {"median": 0.1, "p90": 0.1, "p99": 0.1, "throughput": 9.0, "load": 1.0, "peak_memory": 9}
GATES: list[tuple[Stage, dict[str, Any]]] = [
    (
        ValidateAccuracy(max_drop=0.1),
        {
            "rows": 100, "metric": "f1", "confidence": 0.95, "metrics": {"f1": METRIC, "exact": METRIC},
            "counts": {"candidate": COUNTS, "reference": COUNTS},
        },
    ),
    (
        ValidateLatency(min_speedup=1.0),
        {
            "candidate": SPEED, "reference": SPEED, "speedup": {"value": 1.0, "low": None, "high": 1.1},
            "confidence": 0.95, "batch": 1, "throughput_batch": 8, "tokens": 9.0, "calls": 16, "threads": 1,
            "load_average": 0.1,
        },
    ),
    (
        ValidateAgreement(max_difference=0.1),
        {"nonfinite": 0, "values": 9, "max_abs": 0.1, "mean_abs": 0.1, "cosine_min": None, "same_top": 1.0,
         "cosine_mean": 1.0, "shapes": [[1, 9]], "sequences": 9, "on": "rows"},
    ),
]  # fmt: skip


def fits(stage: Stage, facts: Any, format: str = "report") -> bool:
    return Node("gate", "validate", stage, SIDES).fits(Artifact(format, Path(), "0" * 64, facts))


def places(facts: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in facts.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in places(value))


@pytest.mark.parametrize(("stage", "facts"), GATES, ids=lambda given: type(given).__name__)
def test_facts_that_a_stage_cannot_read_are_not_its_own(stage: Stage, facts: dict[str, Any]) -> None:
    """Whatever is put for a fact, or left out: either it is not taken, or all that is told of it can be told."""
    assert fits(stage, facts)
    assert not fits(stage, facts, "zzz") and not fits(stage, {})
    refused = 0
    for place in places(facts):
        for value in (None, "x", [], {}, 10**400, ...):
            said = copy.deepcopy(facts)
            within = said
            for name in place[:-1]:
                within = within[name]
            within.pop(place[-1]) if value is ... else within.update({place[-1]: value})
            if not fits(stage, said):
                refused += 1
                continue
            read = stage.parse_facts(said)
            stage.judge(read), stage.changes(read), stage.details(read)
            assert all(isinstance(score, int | float) for score in stage.scores(read).values())
            assert [[str(cell.quantity) for cell in stage.cells(read, side)] for side in SIDES]
    assert refused > 10
