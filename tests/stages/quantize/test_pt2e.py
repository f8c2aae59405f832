"""quantize.pt2e: what it asks for, and refusals before anything slow; tests/suites/compiled quantizes for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import pytest
import torch
from pydantic import ValidationError

from cpu_pipeline.backends import hf
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.compile import _inductor
from cpu_pipeline.stages.quantize.pt2e import QuantizePt2e, _linear_layers, _torchao

Built = Callable[..., Artifact]
QA = "question-answering"


def test_calibration_is_asked_for_only_where_ranges_are_fixed() -> None:
    assert QuantizePt2e().asks() == {"task", "target", "data.calibration"}
    assert QuantizePt2e(activations="dynamic").asks() == {"task.head", "target"}
    with pytest.raises(ValidationError, match="no use with `activations: dynamic`"):
        QuantizePt2e(activations="dynamic", samples=3)


def test_no_rows_are_wrong(checkpoint: Built, job: Callable[..., Job], out: Path, tmp_path: Path) -> None:
    for data in ({}, {"calibration": models.write_rows(tmp_path / "rows.jsonl", QA, 0)}):
        with pytest.raises(RecipeError, match=r"needs rows in `data\.calibration`"):
            QuantizePt2e().run({"model": checkpoint("bert", QA)}, out, job(QA, data=data))


def test_no_compiler_is_found_before_anything_is_loaded(
    checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(hf, "checkpoint", lambda *_: pytest.fail("the model was loaded first"))
    with pytest.raises(BackendMissing, match=r"quantize\.pt2e: .* no no-such-compiler here"):
        QuantizePt2e(activations="dynamic").run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_arithmetic_that_overflows_here_and_not_there_is_refused(
    checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "isa", lambda: host.TARGETS["avx512"])
    with pytest.raises(BackendMissing, match="this machine has no VNNI and the target has"):
        QuantizePt2e().run({"model": checkpoint("bert", QA)}, out, job(QA, isa=host.TARGETS["avx512_vnni"]))


@pytest.mark.parametrize(("reduced", "top"), [(False, 255), (True, 127)])
def test_linear_layers_are_quantized_and_keep_their_answers(
    checkpoint: Built, job: Callable[..., Job], tmp_path: Path, reduced: bool, top: int
) -> None:
    # Everything but the compiler: RoBERTa counts its positions in integers, which must be left alone.
    stage, task = QuantizePt2e(samples=6), job(QA).task
    assert task is not None
    source = checkpoint("roberta", QA).path
    rows = models.write_rows(tmp_path / "rows.jsonl", QA, 12)
    module, names, example = _inductor.prepare(hf.checkpoint(source, task), task.outputs)
    batches = stage._calibration(source, names, job(QA, data={"calibration": rows}))
    assert len(batches) == 6 and all(batch["input_ids"].shape[0] == 1 for batch in batches)
    exported = _inductor.export_program("x", module, names, example)
    pass_before = torch._inductor.config.pre_grad_custom_pass
    with _torchao():
        quantized = stage._quantize(exported, batches, reduced, job(QA))
    assert torch._inductor.config.pre_grad_custom_pass is pass_before
    nodes = [node for node in quantized.graph.nodes if node.op == "call_function"]
    weights = [node for node in nodes if "dequantize_per_channel" in str(node.target)]
    activations = [node for node in nodes if "quantized_decomposed.quantize_per_tensor" in str(node.target)]
    assert len(weights) == _linear_layers(exported) == 13
    assert activations and {node.args[4] for node in activations} == {top}
    with torch.no_grad():
        for ours, theirs in zip(quantized(**example), module(**example), strict=True):
            assert 1e-5 < float((ours - theirs).abs().max()) < 0.5


def test_dynamic_quantization_knows_the_weights(checkpoint: Built, job: Callable[..., Job]) -> None:
    task = job(QA).task
    assert task is not None
    module, names, example = _inductor.prepare(hf.checkpoint(checkpoint("bert", QA).path, task), task.outputs)
    with _torchao():
        quantized = QuantizePt2e(activations="dynamic")._quantize(
            _inductor.export_program("x", module, names, example), [], False, job(QA)
        )
    with torch.no_grad():
        for ours, theirs in zip(quantized(**example), module(**example), strict=True):
            assert 1e-5 < float((ours - theirs).abs().max()) < 0.5
