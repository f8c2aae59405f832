"""Exported IR answers as eager does, at any shape, in the same bytes wherever it is made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
from pydantic import ValidationError

from cpu_pipeline import tasks
from cpu_pipeline.backends import hf, openvino
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, Card, digest_tree
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.export.openvino import ExportOpenvino
from cpu_pipeline.tasks import Task
from cpu_pipeline.tasks._synthetic import tokens

TASKS: dict[str, Task] = {
    name: tasks.get(name)()
    for name in ("question-answering", "text-classification", "token-classification", "sentence-similarity")
}


def job(task: str) -> Job:
    return Job(
        load=lambda artifact: openvino.load(artifact.path, TASKS[task], 1),
        timer=lambda _: pytest.fail("nothing is timed here"),
        task=TASKS[task],
        threads=1,
        isa=host.isa(),
    )


def export(checkpoint: Path, out: Path, task: str, **options: Any) -> Any:
    out.mkdir(parents=True)
    given = {"model": Artifact("hf", checkpoint, "", {})}
    return ExportOpenvino(**options).run(given, out, job(task))


@pytest.mark.parametrize(
    ("kind", "task", "inputs"),
    [
        ("bert", "question-answering", ["input_ids", "attention_mask", "token_type_ids"]),
        ("roberta", "question-answering", ["input_ids", "attention_mask"]),
        ("distilbert", "text-classification", ["input_ids", "attention_mask"]),
        ("roberta", "token-classification", ["input_ids", "attention_mask"]),
        ("minilm", "sentence-similarity", ["input_ids", "attention_mask", "token_type_ids"]),
    ],
)
def test_it_answers_as_eager_does(tmp_path: Path, kind: str, task: str, inputs: list[str]) -> None:
    checkpoint = models.make(kind, tmp_path / "hf", task)
    facts = export(checkpoint, tmp_path / "out", task)
    assert facts.inputs == inputs
    assert facts.parity.max_abs < 1e-4
    assert len({tuple(shape) for shape in facts.parity.shapes}) > 1
    session = openvino.load(tmp_path / "out", TASKS[task], 1)
    assert list(session.inputs) == inputs
    # Shapes that neither the trace nor the stage's own comparison has seen.
    eager = hf.load(checkpoint, TASKS[task], 1)
    batches = tokens(checkpoint, [(1, 3), (5, 31), (2, 511)], seed=7)
    seen = parity.compare(session, eager, batches, TOKENS, TASKS[task].per_token)
    assert seen["max_abs"] < 1e-4
    assert seen["nonfinite"] == 0
    ports = [port.get_names() for port in session.compiled.outputs]
    assert ports == [{name} for name in TASKS[task].outputs]


def test_the_directory_is_complete(tmp_path: Path) -> None:
    checkpoint = models.make("minilm", tmp_path / "hf", "sentence-similarity")
    facts = export(checkpoint, tmp_path / "out", "sentence-similarity")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"} <= names
    assert {"openvino_model.xml", "openvino_model.bin", "cpu_pipeline.json"} <= names
    assert not [name for name in names if name.endswith(".safetensors")]
    assert facts.bytes == {name: (tmp_path / "out" / name).stat().st_size for name in (openvino.XML, openvino.BIN)}


@pytest.mark.parametrize(("precision", "hint"), [("f32", "f32"), ("bf16", "bf16"), ("auto", "dynamic")])
def test_the_card_says_what_to_compute_in(tmp_path: Path, precision: str, hint: str) -> None:
    checkpoint = models.make("distilbert", tmp_path / "hf", "text-classification")
    facts = export(checkpoint, tmp_path / "out", "text-classification", inference_precision=precision)
    assert Card.read(tmp_path / "out", "openvino").runtime == {"INFERENCE_PRECISION_HINT": hint}
    assert facts.parity.max_abs < 1e-4  # the graph is judged in float32, whatever it will run in
    openvino.load(tmp_path / "out", TASKS["text-classification"], 1)


def test_half_weights_halve_the_file(tmp_path: Path) -> None:
    checkpoint = models.make("bert", tmp_path / "hf")
    whole = export(checkpoint, tmp_path / "whole", "question-answering")
    half = export(checkpoint, tmp_path / "half", "question-answering", weights="float16")
    assert half.bytes[openvino.BIN] < 0.52 * whole.bytes[openvino.BIN]
    assert 1e-5 < half.parity.max_abs < 2e-2


def test_a_model_that_freezes_what_it_saw_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong graph: the trace keeps a number that was computed from the example's length."""
    checkpoint = models.make("distilbert", tmp_path / "hf", "text-classification")
    load = hf.checkpoint

    def frozen(path: Path, task: Any) -> Any:
        module = load(path, task)
        forward = module.forward

        def scaled(input_ids: Any, attention_mask: Any) -> Any:
            answer = forward(input_ids=input_ids, attention_mask=attention_mask)
            answer.logits = answer.logits * (1 + 0.01 * int(input_ids.shape[1]))
            return answer

        module.forward = scaled
        return module

    monkeypatch.setattr(hf, "checkpoint", frozen)
    with pytest.raises(StageFailed, match="differ from the original"):
        export(checkpoint, tmp_path / "out", "text-classification")


def test_a_tolerance_that_is_too_small_fails(tmp_path: Path) -> None:
    checkpoint = models.make("bert", tmp_path / "hf")
    with pytest.raises(StageFailed, match="differ from the original"):
        export(checkpoint, tmp_path / "out", "question-answering", tolerance=1e-12)


def test_a_model_that_cannot_be_converted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    checkpoint = models.make("distilbert", tmp_path / "hf", "text-classification")
    load = hf.checkpoint

    def odd(path: Path, task: Any) -> Any:
        module = load(path, task)
        forward = module.forward

        def decomposed(input_ids: Any, attention_mask: Any) -> Any:
            answer = forward(input_ids=input_ids, attention_mask=attention_mask)
            answer.logits = torch.linalg.eigvals(answer.logits @ answer.logits.T).real
            return answer

        module.forward = decomposed
        return module

    monkeypatch.setattr(hf, "checkpoint", odd)
    with pytest.raises(StageFailed, match="cannot be converted") as caught:
        export(checkpoint, tmp_path / "out", "text-classification")
    assert "\n" not in str(caught.value)


def test_without_a_task_it_asks_for_one(tmp_path: Path) -> None:
    given = {"model": Artifact("hf", tmp_path, "", {})}
    with pytest.raises(RecipeError, match="names no task"):
        ExportOpenvino().run(given, tmp_path, replace(job("question-answering"), task=None))


def test_options_are_checked() -> None:
    for wrong in ({"weights": "int8"}, {"tolerance": 0}, {"inference_precision": "f16"}, {"opset": 13}):
        with pytest.raises(ValidationError):
            ExportOpenvino(**wrong)  # type: ignore[arg-type]


SCRIPT = """
import importlib.util, sys
from pathlib import Path
test, checkpoint, *outs = map(Path, sys.argv[1:])
sys.path[:0] = [str(test.parents[3]), str(test.parents[2])]
spec = importlib.util.spec_from_file_location("here", test)
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
for out in outs:
    here.export(checkpoint, out, "question-answering")
"""


def test_two_processes_in_two_places_write_the_same_bytes(tmp_path: Path) -> None:
    one = models.make("bert", tmp_path / "one" / "hf")
    two = models.make("bert", tmp_path / "a place" / "far away" / "model")
    test = str(Path(__file__).resolve())
    # The second process converts twice: what it counted the first time must not show in the second file.
    for where, arguments in (
        (tmp_path, [test, str(one), str(tmp_path / "out1")]),
        (two.parent, [test, "model", "first", str(tmp_path / "out2")]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], cwd=where, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert digest_tree(tmp_path / "out1") == digest_tree(tmp_path / "out2")
    text = (tmp_path / "out1" / openvino.XML).read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert str(Path(openvino.__file__).parents[1]) not in text
