"""The invariance gate passes a float model, and names the row whose answer its neighbours changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.core.model_io import TOKENS, InputKind
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.stages.validate import _beside
from cpu_pipeline.stages.validate.invariance import ROWS_FILE, InvarianceFacts, ValidateInvariance
from cpu_pipeline.tasks._base import Feature

TASKS = ("question-answering", "text-classification", "token-classification", "sentence-similarity")
TASK = "text-classification"
Run = Callable[..., InvarianceFacts]


@pytest.fixture
def run(out: Path, job: Callable[..., Job], tmp_path: Path) -> Run:
    """Ask a model on rows, or on random tokens, perhaps through a session that spoils its answers."""

    def ask(model: Artifact, task: str, rows: int = 10, wrap: Any = None, **options: Any) -> InvarianceFacts:
        data = {"validation": models.write_rows(tmp_path / "rows.jsonl", task, rows)} if rows else {}
        given = job(task, data=data)
        if wrap is not None:
            load = given.load
            given = replace(given, load=lambda artifact: wrap(load(artifact)))
        return ValidateInvariance(**{"batches": (8,), **options}).run({"candidate": model}, out, given)

    return ask


class Spoiled:
    """A session that adds to its outputs what the batch says."""

    def __init__(self, session: Any, add: Callable[[Any], Any]) -> None:
        self.session, self.inputs, self.add, self.calls = session, session.inputs, add, 0

    def __call__(self, arrays: Any) -> Any:
        self.calls += 1
        first = next(iter(arrays.values()))
        return {name: value + self.add((first.shape, self.calls)) for name, value in self.session(arrays).items()}


def failed(facts: InvarianceFacts, **bounds: Any) -> list[str]:
    return [v.check for v in ValidateInvariance(**bounds).judge(facts) if not v.passed]


@pytest.mark.parametrize("task", TASKS)
def test_a_float_model_passes_for_every_task(task: str, run: Run, checkpoint: Callable[..., Artifact]) -> None:
    facts = run(checkpoint("bert", task), task)
    assert failed(facts, max_difference=1e-4) == []
    assert set(facts.conditions) == {"alone, again", "alone, padded", "8, like lengths", "8, mixed lengths"}
    assert facts.conditions["alone, again"].differences == dict.fromkeys(facts.worst, 0.0)
    assert facts.rows == 10 and facts.changed == 0 and facts.on == "rows"


def test_one_scale_for_a_whole_batch_is_found(
    run: Run, exported: Callable[..., Artifact], job: Callable[..., Job], tmp_path: Path
) -> None:
    exact = run(exported("bert", TASK), TASK)
    (tmp_path / "int8").mkdir()
    int8 = QuantizeOnnx().run({"model": exported("bert", TASK)}, tmp_path / "int8", job(TASK))
    facts = run(Artifact("onnx", tmp_path / "int8", "", stored_facts(int8)), TASK)
    assert failed(exact, max_difference=1e-4) == []
    assert failed(facts, max_difference=1e-4) == ["logits"]
    assert facts.conditions["alone, again"].differences["logits"] == 0
    moved = facts.conditions["8, mixed lengths"].differences["logits"]
    assert moved is not None and moved > 1e-3


@pytest.mark.parametrize(
    ("condition", "add"),
    [
        ("alone, again", lambda call: 0.5 if call[1] > 10 and call[0][0] == 1 else 0.0),
        ("8, like lengths", lambda call: 0.5 if call[0][0] == 8 else 0.0),
    ],
)
def test_what_moves_is_named(condition: str, add: Any, run: Run, checkpoint: Callable[..., Artifact]) -> None:
    facts = run(checkpoint("bert", TASK), TASK, wrap=lambda session: Spoiled(session, add))
    [verdict] = [v for v in ValidateInvariance(max_difference=0.4).judge(facts) if not v.passed]
    worst = facts.worst["logits"]
    assert verdict.value == pytest.approx(0.5, abs=1e-4)
    assert worst.condition.startswith(condition.partition(",")[0])
    assert f"(row {worst.row}, {worst.condition}); at most 0.4 asked" in verdict.says
    assert failed(facts, max_difference={"logits": 0.6}) == []


def test_changed_answers_are_counted_and_kept(run: Run, checkpoint: Callable[..., Artifact], out: Path) -> None:
    def flip(call: Any) -> Any:
        return np.array([-100.0, 100.0], np.float32) if call[0][0] == 8 else 0.0

    facts = run(checkpoint("bert", TASK), TASK, wrap=lambda session: Spoiled(session, flip))
    lines = read_jsonl(out / ROWS_FILE)
    flipped = [line for line in lines if line["changed"]]
    assert len(lines) == 10 and facts.changed == len(flipped)
    assert all('"label": 0' in line["alone"] for line in flipped)
    assert all('"label": 1' in answer for line in flipped for answer in line["changed"].values())


def facts_of(**found: Any) -> InvarianceFacts:
    moved = {"row": "r7", "condition": "32, mixed lengths", "difference": 0.25}
    equal = {"rows": 20, "sequences": 20, "on": "rows", "worst": {"logits": moved}, "conditions": {}, "changed": 1}
    about = {"choices": 3, "first_changed": moved, "nonfinite": 0, "values": 40}
    return InvarianceFacts.model_validate({**equal, **about, **found})


def test_bounds_are_judged() -> None:
    assert failed(facts_of(), max_difference=0.25, max_changed=0.05) == []
    assert failed(facts_of(), max_difference=0.24, max_changed=0.04) == ["logits", "changed"]
    assert failed(facts_of(nonfinite=1), max_difference=1) == ["finite"]
    assert failed(facts_of(worst={"logits": {"row": "a", "condition": "b", "difference": None}}), max_difference=9) == [
        "logits"
    ]
    says = ValidateInvariance(max_changed=0.0).judge(facts_of())[-1].says
    assert says == ("1 of 20 rows have another answer than alone (row r7, 32, mixed lengths); at most 0.00% asked")


def test_answers_that_cannot_change_are_no_proof() -> None:
    assert failed(facts_of(choices=0, changed=0), max_changed=0.0) == ["changed"]
    assert failed(facts_of(choices=1, changed=0), max_changed=0.0) == ["changed"]


def test_without_a_bound_it_says_that_it_only_measures() -> None:
    assert [v.says.partition(":")[0] for v in ValidateInvariance().judge(facts_of())][-1] == "only measured"


@pytest.mark.parametrize("options", [{"max_changed": 1}, {"max_difference": float("inf")}, {"batches": ()}])
def test_bounds_that_cannot_fail_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ValidateInvariance(**options)


def test_an_output_that_the_task_lacks_is_refused(job: Callable[..., Job]) -> None:
    task = job(TASK).task
    assert task is not None
    assert "no output `logit`" in ValidateInvariance(max_difference={"logit": 0.1}).misfits(task)[0]
    assert ValidateInvariance(max_difference={}).misfits(task)


def test_batches_are_full_and_each_feature_counts_once() -> None:
    features = [Feature(i, {"input_ids": [1] * (i + 2)}) for i in range(11)]
    found = _beside.conditions(features, (8,), {"input_ids": TOKENS["input_ids"]})
    for name in ("8, like lengths", "8, mixed lengths"):
        assert all(len(group.numbers) == 8 for group in found[name])
        assert sorted(i for group in found[name] for i in group.numbers[: group.counted]) == list(range(11))
    assert list(found["8, mixed lengths"][0].numbers[:4]) == [0, 10, 1, 9]
    alone = _beside.conditions(features, (8,), {"input_ids": InputKind(fill=None)})
    assert "alone, padded" not in alone
    assert all(len({features[i].length for i in group.numbers}) == 1 for group in alone["8, mixed lengths"])


def test_random_tokens_where_there_are_no_rows(run: Run, checkpoint: Callable[..., Artifact]) -> None:
    facts = run(checkpoint("bert", TASK), TASK, rows=0)
    assert facts.on == "random tokens" and facts.choices == 0
    assert failed(facts, max_difference=1e-4) == []
