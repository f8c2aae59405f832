"""export.onnx: dynamic, right, the same bytes anywhere, and wrong exports are caught."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import onnx
import pytest
import torch

from cpu_pipeline.backends import hf
from cpu_pipeline.backends import onnx as backend
from cpu_pipeline.core.artifact import Artifact, Card, digest_file, digest_tree
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.export.onnx import ExportOnnx, export
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks._synthetic import tokens

Built = Callable[..., Artifact]
QA = "question-answering"
CASES = [
    ("bert", QA),
    ("roberta", "text-classification"),
    ("distilbert", "token-classification"),
    ("minilm", "sentence-similarity"),
]
ELSEWHERE = """
import os, sys
from pathlib import Path
import models
from cpu_pipeline.backends import hf
from cpu_pipeline.stages.export.onnx import export
from cpu_pipeline.tasks.question_answering import QuestionAnswering
task = QuestionAnswering()
out = Path(sys.argv[1])
source = models.make("bert", out / "checkpoint")
export(hf.checkpoint(source, task), task, source, out, 18)
"""


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_export_answers_as_eager_torch_does(exported: Built, job: Callable[..., Job], kind: str, task: str) -> None:
    artifact = exported(kind, task)
    facts = artifact.facts["parity"]
    assert facts["max_abs"] < 2e-5 and facts["nonfinite"] == 0 and facts["same_top"] == 1.0
    assert [4, 64] in facts["shapes"] and [1, 6] in facts["shapes"]
    session = job(task).load(artifact)
    kinds = {"roberta": 2, "distilbert": 2}
    assert session.inputs == ("input_ids", "attention_mask", "token_type_ids")[: kinds.get(kind, 3)]
    assert Card.read(artifact.path, "onnx") == Card("onnx")


def test_export_is_dynamic_and_named(exported: Built) -> None:
    graph = onnx.load(exported("bert", QA).path / "model.onnx").graph
    axes = {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert set(axes) == {"input_ids", "attention_mask", "token_type_ids", "start_logits", "end_logits"}
    assert set(map(tuple, axes.values())) == {("batch", "sequence")}
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "bert.encoder.layer.1.output.dense/MatMul" in names
    assert "bert.embeddings.word_embeddings.weight" in {tensor.name for tensor in graph.initializer}


def test_directory_is_complete(exported: Built, checkpoint: Built) -> None:
    source, path = checkpoint("minilm", "sentence-similarity").path, exported("minilm", "sentence-similarity").path
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"):
        assert (path / name).read_bytes() == (source / name).read_bytes()
    assert not list(path.rglob("*.safetensors"))


def test_another_process_in_another_place_writes_the_same_bytes(exported: Built, tmp_path: Path) -> None:
    # The exporter notes where the code lies: run it from a copy, as another clone would.
    code = tmp_path / "clone"
    package = Path(parity.__file__).parents[1]
    shutil.copytree(package, code / "cpu_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(models.__file__, code)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path], cwd=tmp_path, env=environment, check=True)
    assert digest_file(tmp_path / "model.onnx") == digest_file(exported("bert", QA).path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    for trace in (b".py", b"site-packages", b"stack_trace", b"clone", str(tmp_path).encode(), b"forward"):
        assert trace not in data, trace


def test_weights_beyond_the_limit_lie_beside_the_graph(exported: Built, job: Callable[..., Job]) -> None:
    inside, beside = exported("bert", QA), exported("bert", QA, inline=50_000)
    assert not (inside.path / "model.onnx_data").exists()
    data, graph = beside.path / "model.onnx_data", beside.path / "model.onnx"
    assert data.stat().st_nlink == 1 and data.stat().st_size > graph.stat().st_size
    assert beside.facts["bytes"] == data.stat().st_size + graph.stat().st_size
    batches = tokens(beside.path)
    task = job(QA)
    facts = parity.compare(task.load(beside), task.load(inside), batches, TOKENS, per_token=True)
    assert facts["max_abs"] == 0.0


def wrong_export(source: Artifact, out: Path, task: Task, *, mask: bool, dynamic: bool) -> None:
    """Export through the exporter of old, leaving out the mask or the dynamic axes, as scripts are known to do."""
    model = hf.checkpoint(source.path, task)
    example = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", *(["attention_mask"] if mask else [])]
    axes = {name: {0: "batch", 1: "sequence"} for name in (*names, *task.outputs)} if dynamic else None
    model.config.return_dict = False
    torch.onnx.export(
        model, (example,) * len(names), out / "model.onnx", dynamo=False, opset_version=18,
        input_names=names, output_names=list(task.outputs), dynamic_axes=axes,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mask": False, "dynamic": True}, r"differ from the original by up to \d.*1x128, 4x64"),
        ({"mask": True, "dynamic": False}, "does not run on input_ids 1x6"),
    ],
)
def test_an_exporter_that_answers_wrongly_fails_the_stage(
    checkpoint: Built,
    job: Callable[..., Job],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, bool],
    says: str,
) -> None:
    source, its = checkpoint("bert", QA), job(QA)

    def export_wrongly(model: Any, task: Task, home: Path, out: Path, opset: int, inline: int) -> None:
        wrong_export(source, out, task, **wrong)

    monkeypatch.setattr("cpu_pipeline.stages.export.onnx.export", export_wrongly)
    with pytest.raises(StageFailed, match=says):
        ExportOnnx().run({"model": source}, out, its)


def test_a_tolerance_nothing_can_meet_fails(
    checkpoint: Built, exported: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exported("bert", QA).path / "model.onnx"
    monkeypatch.setattr("cpu_pipeline.stages.export.onnx.export", lambda *given: shutil.copy(right, out))
    with pytest.raises(StageFailed, match="differ from the original"):
        ExportOnnx(tolerance=1e-12).run({"model": checkpoint("bert", QA)}, out, job(QA))
    assert ExportOnnx().run({"model": checkpoint("bert", QA)}, out, job(QA)).parity.nonfinite == 0


def test_a_recipe_without_a_task_is_wrong(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    with pytest.raises(RecipeError, match="names no task"):
        ExportOnnx().run({"model": checkpoint("bert", QA)}, out, job(QA, task=None))


def test_what_torch_cannot_export_is_a_failed_stage(out: Path) -> None:
    class Odd(torch.nn.Module):
        config = SimpleNamespace(type_vocab_size=1)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return {"logits": torch.tensor([float(str(input_ids.sum().item()))])}

    with pytest.raises(StageFailed, match="torch cannot export Odd"):
        export(Odd(), SimpleNamespace(outputs=("logits",), input_kinds=lambda model: TOKENS), out, out, 18)


def test_export_leaves_its_input_alone(checkpoint: Built, exported: Built) -> None:
    source = checkpoint("bert", QA)
    before = digest_tree(source.path)
    exported("bert", QA)
    assert digest_tree(source.path) == before
    assert backend.MODEL not in {path.name for path in source.path.iterdir()}
