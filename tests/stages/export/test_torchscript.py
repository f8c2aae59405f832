"""export.torchscript: right at every shape, the same bytes anywhere, and a trace that lies is caught or replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import pytest
import torch
import transformers

from cpu_pipeline.backends import hf
from cpu_pipeline.backends import torchscript as backend
from cpu_pipeline.core.artifact import Artifact, Card, digest_file
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS, InputKind
from cpu_pipeline.runtime import parity
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages import _module, _trace
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.export.torchscript import ExportTorchscript, script
from cpu_pipeline.tasks import Task
from cpu_pipeline.tasks._synthetic import tokens

Built = Callable[..., Artifact]
Jobs = Callable[..., Job]
QA, LABEL = "question-answering", "text-classification"
ELSEWHERE = """
import sys
from pathlib import Path
import models
from cpu_pipeline.backends import hf
from cpu_pipeline.stages._trace import write
from cpu_pipeline.stages.export.torchscript import script
from cpu_pipeline.tasks.question_answering import QuestionAnswering
task = QuestionAnswering()
out = Path(sys.argv[1])
for kind in ("roberta", "bert"):  # the second is named by what was traced before it, unless that is taken out
    module = hf.checkpoint(models.make(kind, out / kind), task)
    write(script(module, hf.inputs_of(module), task.outputs, False, []), out / "model.pt", "here")
"""


@pytest.fixture(scope="module")
def scripted(checkpoint: Built, job: Jobs, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the TorchScript export of a kind and task, made once, with the stage's facts."""

    @cache
    def give(kind: str, task: str, **options: Any) -> Artifact:
        out = tmp_path_factory.mktemp("torchscript")
        facts = ExportTorchscript(**options).run({"model": checkpoint(kind, task)}, out, job(task))
        return Artifact("torchscript", out, "", stored_facts(facts))

    return give


@pytest.mark.parametrize("task", models.HEADS)
@pytest.mark.parametrize("kind", models.FAMILIES)
def test_what_must_trace_without_the_fallback_does(scripted: Built, kind: str, task: str) -> None:
    artifact = scripted(kind, task)
    facts, card = artifact.facts, Card.read(artifact.path, "torchscript")
    assert facts["eager"] is False and "reason" not in facts
    assert facts["parity"]["max_abs"] < 2e-5 and facts["parity"]["nonfinite"] == 0
    assert facts["parity"]["shapes"] == [list(shape) for shape in Task.shapes]
    assert len(card.runtime["inputs"]) == (2 if kind in ("roberta", "distilbert") else 3)
    assert facts["bytes"] == (artifact.path / "model.pt").stat().st_size
    assert not list(artifact.path.rglob("*.safetensors"))
    json.dumps(facts, allow_nan=False)


def test_the_mask_counts(scripted: Built, job: Jobs) -> None:
    session = job(QA).load(scripted("bert", QA))
    (batch,) = tokens(scripted("bert", QA).path, [(1, 20)])
    alone = pad(batch, session.inputs, TOKENS)
    padded = pad(batch, session.inputs, {**TOKENS, "input_ids": InputKind(fill=7)}, length=50)
    for name, answer in session(padded).items():
        assert abs(answer[:, :20] - session(alone)[name]).max() < 1e-5


def test_directory_is_complete(scripted: Built, checkpoint: Built) -> None:
    task = "sentence-similarity"
    source, path = checkpoint("minilm", task).path, scripted("minilm", task).path
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"):
        assert (path / name).read_bytes() == (source / name).read_bytes()


def test_another_process_in_another_place_writes_the_same_bytes(scripted: Built, tmp_path: Path) -> None:
    code = tmp_path / "clone"
    package = Path(parity.__file__).parents[1]
    shutil.copytree(package, code / "cpu_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(models.__file__, code)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path], cwd=tmp_path, env=environment, check=True)
    ours = scripted("bert", QA).path / "model.pt"
    assert digest_file(tmp_path / "model.pt") == digest_file(ours)
    with zipfile.ZipFile(ours) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"model"}
        everything = b"\n".join(archive.read(name) for name in archive.namelist())
    for trace in (b"site-packages", b"clone", b"modeling_bert", b"/cpu_pipeline/", str(tmp_path).encode()):
        assert trace not in everything, trace


def test_bfloat16_is_half_the_size_and_says_what_rounding_does(scripted: Built, job: Jobs) -> None:
    exact, half = scripted("bert", QA), scripted("bert", QA, dtype="bfloat16")
    assert half.facts["bytes"] < 0.6 * exact.facts["bytes"]
    rounding = half.facts["rounding"]["max_abs"]
    assert half.facts["parity"]["max_abs"] <= 1e-4 < rounding < 1
    stage = ExportTorchscript(dtype="bfloat16")
    (note,) = stage.details(stage.parse_facts(half.facts))
    assert note.text.startswith("Rounding to bfloat16 moves outputs by up to")
    answers = job(QA).load(half)(pad(tokens(half.path)[0], list(TOKENS), TOKENS))
    assert {answer.dtype.name for answer in answers.values()} == {"float32"}


def test_torchs_own_pass_keeps_the_answers(scripted: Built) -> None:
    artifact = scripted("roberta", LABEL, optimize_for_inference=True)
    assert artifact.facts["parity"]["max_abs"] < 2e-5
    kinds = {node.kind() for node in backend.open_module(artifact.path / "model.pt").inlined_graph.nodes()}
    assert "aten::linear" not in kinds  # the pass ran: it parts them
    assert ExportTorchscript(optimize_for_inference=True).host() == "isa" and ExportTorchscript().host() == "none"


SMALL = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 512, "head_dim": 8, "initializer_range": 0.3,
    "num_experts_per_tok": 1, "layer_types": ["linear_attention", "full_attention"],
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
UNFAITHFUL = {
    # Loops over chunks of 64 tokens in Python: the trace holds as many turns as the example needed, one.
    "Qwen3Next": (
        {"num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
         "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
        "answers differ from the original by up to",
    ),
    # Loops over blocks too, and a block's size is a number in the graph: other lengths do not run at all.
    "MiniMax": ({"block_size": 16, "num_local_experts": 2}, ": The size of"),
}  # fmt: skip


@pytest.fixture(scope="module")
def unfaithful(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """Give a tiny checkpoint of an architecture whose trace is wrong at other lengths."""

    @cache
    def give(family: str) -> Artifact:
        path = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**SMALL, **UNFAITHFUL[family][0])
        getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(path)
        return Artifact("hf", path, "", {})

    return give


@pytest.mark.parametrize("family", UNFAITHFUL)
def test_a_trace_that_is_not_faithful_fails_and_says_why(
    unfaithful: Callable[[str], Artifact], job: Jobs, out: Path, family: str
) -> None:
    with pytest.raises(StageFailed, match=UNFAITHFUL[family][1]) as caught:
        ExportTorchscript().run({"model": unfaithful(family)}, out, job(LABEL))
    assert "on_failure: eager" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("family", UNFAITHFUL)
def test_the_fallback_runs_and_says_that_it_is_one(
    unfaithful: Callable[[str], Artifact], job: Jobs, out: Path, family: str
) -> None:
    stage, source = ExportTorchscript(on_failure="eager"), unfaithful(family)
    facts = stage.run({"model": source}, out, job(LABEL))
    assert facts.eager is True and UNFAITHFUL[family][1] in facts.reason
    assert any("might not generalize" in fear or "Converting a tensor" in fear for fear in facts.tracer_warnings)
    warning, reason = stage.details(facts)
    assert warning.warning and "Not TorchScript: this artifact runs eagerly" in warning.text
    assert UNFAITHFUL[family][1] in reason.text
    assert Card.read(out, "torchscript") == Card("torchscript", runtime={"eager": True})
    assert sorted(path.name for path in out.iterdir() if path.suffix in (".pt", ".safetensors")) == [
        "model.safetensors"
    ]
    kept, eager = job(LABEL).load(Artifact("torchscript", out, "", {})), job(LABEL).load(source)
    found = parity.compare(kept, eager, tokens(out, [(2, 128)]), TOKENS, per_token=False)
    assert found["max_abs"] == 0.0 and found["values"] > 0


class Odd(torch.nn.Module):
    """Gives no tensor."""

    config = SimpleNamespace(type_vocab_size=1, vocab_size=50)

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
        raise ValueError("You cannot do this\nwhile tracing")


def test_what_cannot_be_traced_is_a_failed_stage() -> None:
    with pytest.raises(StageFailed, match="Odd cannot be traced: You cannot do this while tracing"):
        script(Odd(), ("input_ids", "attention_mask"), ("logits",), False, [])


def test_the_fallback_takes_what_cannot_be_traced(
    checkpoint: Built, job: Jobs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trace, "with_names", lambda *given: Odd())
    facts = ExportTorchscript(on_failure="eager").run({"model": checkpoint("bert", QA)}, out, job(QA))
    assert facts.eager is True and "BertForQuestionAnswering cannot be traced" in facts.reason
    assert facts.parity.max_abs == 0.0
    with pytest.raises(StageFailed, match="cannot be traced"):
        ExportTorchscript().run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_a_trace_without_the_mask_is_caught(
    checkpoint: Built, job: Jobs, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hf.outputs_of

    def deaf(module: Any, names: Any, outputs: Any) -> Any:
        class Deaf(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = module

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                return tuple(real(self.model(input_ids, token_type_ids=token_type_ids), outputs).values())

        return Deaf().eval()

    monkeypatch.setattr(_trace, "with_names", deaf)
    with pytest.raises(StageFailed, match=r"answers differ from the original by up to \d"):
        ExportTorchscript().run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_the_example_pads_and_every_row_ends_with_the_end_token() -> None:
    config = SimpleNamespace(pad_token_id=1, eos_token_id=2, vocab_size=100)
    given = _module.example(SimpleNamespace(config=config), tuple(TOKENS))
    ids, mask = given["input_ids"], given["attention_mask"]
    assert ids.shape == _module.SHAPE and mask.sum(1).tolist() == list(_module.LENGTHS)
    assert (ids[mask == 0] == 1).all() and (ids == 2).sum(1).tolist() == [1, 1, 1]
    assert [row[length - 1] for row, length in zip(ids.tolist(), _module.LENGTHS, strict=True)] == [2, 2, 2]
    # Ids that a tiny vocabulary has not are left out.
    small = SimpleNamespace(config=SimpleNamespace(pad_token_id=None, eos_token_id=32000, vocab_size=5))
    assert 0 <= int(_module.example(small, tuple(TOKENS))["input_ids"].max()) < 5


def test_tracing_is_silent(checkpoint: Built, job: Jobs, recwarn: pytest.WarningsRecorder) -> None:
    module = hf.checkpoint(checkpoint("bert", QA).path, job(QA).task)
    recwarn.clear()
    fears: list[str] = []
    _trace.trace(module, hf.inputs_of(module), job(QA).task.outputs, fears)
    assert not recwarn.list
    assert fears and all("/" not in fear.partition(":")[0] for fear in fears)


def test_a_recipe_without_a_task_is_wrong(checkpoint: Built, job: Jobs, out: Path) -> None:
    with pytest.raises(RecipeError, match="names no task"):
        ExportTorchscript().run({"model": checkpoint("bert", QA)}, out, job(QA, task=None))
