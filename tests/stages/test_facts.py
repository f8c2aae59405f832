"""Facts are typed where they are read, and stored as they always were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline import stages
from cpu_pipeline.core.artifact import Artifact, canonical
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.stages import Inputs, Job, Stage
from cpu_pipeline.stages._base import Facts, Verdict, stored_facts

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("recorded_facts.json").read_text(encoding="utf-8")
)
"""Stage -> facts that were recorded before they were typed, of models of a few kilobytes, one for each set of keys."""
SAMPLES = [(name, facts) for name, samples in RECORDED.items() for facts in samples]
OWN = [name for name in stages.names(internal=True) if name.partition(".")[0] != "faulty"]


@pytest.mark.parametrize("name", OWN)
def test_every_stage_types_its_facts_and_reads_what_it_recorded_before(name: str) -> None:
    cls = stages.get(name)
    assert cls.facts_model is not None and issubclass(cls.facts_model, Facts)
    assert RECORDED[name]


@pytest.mark.parametrize(("name", "facts"), SAMPLES)
def test_reading_and_storing_again_changes_no_byte(name: str, facts: dict[str, Any]) -> None:
    read = stages.get(name).parse_facts(facts)
    assert canonical(stored_facts(read)) == canonical(facts)


@pytest.mark.parametrize(("name", "facts"), SAMPLES)
def test_facts_that_lack_one_or_hold_another_type_are_refused(name: str, facts: dict[str, Any]) -> None:
    model = stages.get(name).facts_model
    assert model is not None
    for field, about in model.model_fields.items():
        key = about.alias or field
        if about.is_required():
            with pytest.raises(ValueError, match="Field required"):
                stages.get(name).parse_facts({k: v for k, v in facts.items() if k != key})
    for key in facts.keys() - {"model_type", "architecture"}:  # these are whatever a config.json says
        with pytest.raises(ValueError, match=key):
            stages.get(name).parse_facts({**facts, key: [[object.__name__], 10**400]})


class Typed(Facts):
    """Facts of the stage below."""

    score: float
    unit: str = "points"


class Plain(Stage):
    """A stage of another distribution, that knows of no class of facts."""

    def gives(self) -> str:
        return "report"

    def run(self, inputs: Inputs, out: Path, job: Job) -> dict[str, Any]:
        return {"score": 0.5}

    def judge(self, facts: Any) -> list[Verdict]:
        return [Verdict("score", facts["score"] >= 0.5, "half")]


class Buggy(Plain):
    """One whose `cells` cannot read what it wrote."""

    facts_model = Typed

    def cells(self, facts: Typed, side: str) -> Any:
        return facts.scores  # type: ignore[attr-defined]  # the bug


def node(stage: Stage) -> Node:
    return Node("gate", "gate", stage, {"candidate": "a"})


def test_a_stage_without_a_class_of_facts_gets_its_mapping() -> None:
    stage = Plain()
    facts = stage.parse_facts({"score": 0.5})
    assert facts == {"score": 0.5} == stored_facts(facts)
    assert stage.judge(facts)[0].passed
    assert node(stage).fits(Artifact("report", Path(), "", facts))


def test_a_field_that_has_its_default_is_not_stored() -> None:
    assert stored_facts(Typed(score=0.5, unit="points")) == {"score": 0.5}
    assert stored_facts(Typed(score=0.5, unit="percent")) == {"score": 0.5, "unit": "percent"}


def test_a_bug_in_cells_is_an_error_and_not_a_damaged_record() -> None:
    stage = Buggy()
    assert node(stage).fits(Artifact("report", Path(), "", {"score": 0.5}))
    assert not node(stage).fits(Artifact("report", Path(), "", {"score": "high"}))
    with pytest.raises(AttributeError, match="scores"):
        stage.cells(stage.parse_facts({"score": 0.5}), "candidate")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_stored_as_none(value: float) -> None:
    from cpu_pipeline.stages.validate.latency import SpeedupFacts

    assert stored_facts(SpeedupFacts(value=1.0, low=value, high=value)) == {"value": 1.0, "low": None, "high": None}
