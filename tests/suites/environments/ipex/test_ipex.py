"""Checkpoints fused in the ipex environment, and judged from the default one by every validation there is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cpu_pipeline import api
from cpu_pipeline.core.artifact import CARD
from cpu_pipeline.core.events import Event
from cpu_pipeline.engine.environments import Environment

Build = Callable[..., api.Outcome]

QA = "question-answering"
LAYERS = 2
ONEDNN = {"attention": 2, "concat_linear": 2, "linear_add": 4, "linear_gelu": 2, "add_layernorm": 1}
"""What IPEX fuses in two layers and the embeddings' norm with oneDNN."""
MKL = {"attention": 2, "concat_linear": 2, "linear_add": 0, "linear_gelu": 0, "add_layernorm": 5}
"""With MKL it leaves GELUs alone, and every add goes to a layer norm."""
EVERY_GATE = """\
- {id: float, use: fuse.ipex}
- {id: half, use: fuse.ipex, from: {model: model}, with: {dtype: bfloat16}}
- {id: float-accuracy, use: validate.accuracy, from: {candidate: float, reference: model}, with: {max_drop: 0.0}}
- {id: half-accuracy, use: validate.accuracy, from: {candidate: half, reference: model}, with: {max_drop: 0.1}}
- {id: float-agreement, use: validate.agreement, from: {candidate: float, reference: model},
   with: {max_difference: 1.0e-4, same_top: 1.0}}
- {id: half-agreement, use: validate.agreement, from: {candidate: half, reference: model}, with: {cosine: 0.99}}
- {id: speed, use: validate.latency, from: {candidate: half, reference: model},
   with: {max_median: 10, calls: 2, rounds: 2, processes: 1}}
"""


def test_a_recipe_fuses_there_and_is_judged_against_the_checkpoint_here(build: Build, ipex: Environment) -> None:
    events: list[Event] = []
    outcome = build("roberta", QA, EVERY_GATE, events)
    assert outcome.built.passed and outcome.path is not None

    facts = {name: outcome.built.artifacts[name].facts for name in ("float", "half", "float-agreement", "speed")}
    for name in ("float", "half"):
        assert {fusion: facts[name][fusion] for fusion in ONEDNN} == ONEDNN == facts[name]["expected"]
    # One torch against another, and arithmetic that really is bfloat16.
    assert 0 < facts["float"]["parity"]["max_abs"] < 2e-5
    assert 1e-3 < facts["half"]["parity"]["max_abs"] < 0.2
    assert facts["half"]["bytes"] < 0.75 * facts["float"]["bytes"]
    assert 0 < facts["float-agreement"]["max_abs"] < 2e-5
    assert facts["speed"]["candidate"]["median"] > 0

    card = json.loads((outcome.path / "half" / CARD).read_text())
    assert card["runtime"]["dtype"] == "bfloat16" and "avx512bw" in card["needs"]
    manifest = json.loads((outcome.path / "manifest.json").read_text())
    assert manifest["environments"]["ipex"]["pins"] == ipex.digest
    report = (outcome.path / "report.md").read_text()
    assert ipex.warning in report and "Fused by IPEX in bfloat16: attention 2, concat\\_linear 2" in report
    assert [event.why for event in events if event.what == "warning"] == [(ipex.warning,)]


CASES: dict[str, dict[str, Any]] = {
    "float32": {"kind": "bert", "task": "text-classification"},
    "bfloat16": {"kind": "distilbert", "task": "token-classification", "options": {"dtype": "bfloat16"}},
    "embeddings": {"kind": "minilm", "task": "sentence-similarity", "options": {"dtype": "bfloat16"}},
    "mkl": {"kind": "roberta", "task": QA, "options": {"kernels": "mkl"}},
    "torch": {"kind": "bert", "task": QA, "options": {"attention_kernel": "torch"}},
    "again": {"kind": "bert", "task": "text-classification"},
    "sdpa": {"kind": "roberta", "task": QA, "sdpa": True},
    "sdpa, accepted": {"kind": "roberta", "task": QA, "sdpa": True, "options": {"attention": 0}},
    "more": {"kind": "roberta", "task": QA, "options": {"kernels": "mkl", "linear_gelu": 1, "linear_add": 2}},
    "strict": {"kind": "roberta", "task": QA, "options": {"dtype": "bfloat16", "tolerance": 1e-5}},
}


@pytest.fixture(scope="module")
def done(
    ipex: Environment, checkpoints: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Do all cases in one process of the environment: it takes ten seconds to begin."""
    place = tmp_path_factory.mktemp("within")
    given = {}
    for name, case in CASES.items():
        (place / name).mkdir()
        model = str(checkpoints(case["kind"], case["task"]))
        given[name] = {"options": {}, "sdpa": False, **case, "model": model, "out": str(place / name)}
    (place / "cases.json").write_text(json.dumps(given))
    run = subprocess.run(
        [ipex.python, Path(__file__).with_name("within.py"), place / "cases.json", place / "done.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((place / "done.json").read_text())


@pytest.mark.parametrize(
    ("case", "fused"),
    [
        ("float32", ONEDNN),
        ("bfloat16", ONEDNN),
        ("embeddings", ONEDNN),
        ("mkl", MKL),
        ("torch", {**ONEDNN, "attention": 0}),
    ],
)
def test_every_promised_fusion_is_in_the_graph_that_runs(
    done: dict[str, Any], case: str, fused: dict[str, int]
) -> None:
    facts = done[case]["facts"]
    assert {name: facts[name] for name in fused} == fused == facts["expected"]
    assert facts["parity"]["max_abs"] < (2e-5 if facts["dtype"] == "float32" else 0.2)
    assert done[case]["dtypes"] == ["float32"]


@pytest.mark.parametrize("case", ["float32", "bfloat16", "embeddings", "mkl"])
def test_the_first_answer_of_a_session_is_as_every_later_one(done: dict[str, Any], case: str) -> None:
    assert done[case]["first_as_later"]


def test_the_bytes_are_the_same_whatever_was_traced_before(done: dict[str, Any]) -> None:
    assert done["again"]["model.pt"] == done["float32"]["model.pt"] != done["mkl"]["model.pt"]


def test_a_fusion_that_is_lost_fails_unless_it_is_accepted(done: dict[str, Any]) -> None:
    said = "fuse.ipex: IPEX fused attention 0 of 2: it does not know this graph; set `attention: 0` to accept it"
    assert done["sdpa"]["error"] == said
    assert done["sdpa, accepted"]["facts"]["attention"] == 0
    assert done["sdpa, accepted"]["facts"]["linear_gelu"] == LAYERS
    assert "linear_add 0 of 2, linear_gelu 0 of 1" in done["more"]["error"]


def test_answers_beyond_the_tolerance_fail(done: dict[str, Any]) -> None:
    assert done["strict"]["error"].startswith("fuse.ipex: answers differ from the original by up to 0.0")
