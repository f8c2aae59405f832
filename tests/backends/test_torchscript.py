"""torchscript: whole files are run, broken ones named; new shapes make no new plan; a kept checkpoint runs eagerly."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest
import torch

from cpu_pipeline.backends import hf
from cpu_pipeline.backends import torchscript as backend
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.tasks.question_answering import QuestionAnswering

TASK = SimpleNamespace(outputs=("logits",))
RUNTIME = {"inputs": ["input_ids", "attention_mask"], "outputs": ["logits", "more"]}


class Tiny(torch.nn.Module):
    """Gives logits = sum of ids under the mask, and a second output in bfloat16."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = (input_ids * attention_mask).to(torch.float32).sum(1, keepdim=True)
        return logits, (logits / 3).to(torch.bfloat16)


def make(path: Path, module: torch.nn.Module | None = None, **card: Any) -> Path:
    """Write an artifact of a scripted module."""
    torch.jit.save(torch.jit.script((module or Tiny()).eval()), path / "model.pt")
    Card("torchscript", **{"runtime": RUNTIME, **card}).write(path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (make(tmp_path_factory.mktemp("whole")) / "model.pt").read_bytes()


def ids(*rows: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    array = np.array(rows, dtype=np.int64)
    return {"input_ids": array, "attention_mask": (array > 0).astype(np.int64)}


def test_a_module_runs(tmp_path: Path) -> None:
    session = backend.load(make(tmp_path), TASK, 1)
    assert session.inputs == ("input_ids", "attention_mask")
    answer = session(ids([1, 2, 3], [4, 0, 0]))
    assert list(answer) == ["logits"] and answer["logits"].tolist() == [[6.0], [4.0]]
    everything = backend.load(tmp_path, None, 1)(ids([1, 2]))
    assert list(everything) == ["logits", "more"] and {a.dtype for a in everything.values()} == {np.dtype(np.float32)}
    only = backend.load(tmp_path, SimpleNamespace(outputs=("more",)), 1)(ids([1, 2]))
    assert only["more"].tolist() == [[1.0]]


def test_threads_reach_torch(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        backend.load(make(tmp_path), TASK, 3)
        assert torch.get_num_threads() == 3
        backend.load(tmp_path, TASK, 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 50, random.Random(0).randbytes(300), b"\x80\x04pickle", b"PK\x03\x04"]
)
def test_what_is_no_archive_says_so(tmp_path: Path, content: bytes) -> None:
    (make(tmp_path) / "model.pt").write_bytes(content)
    with pytest.raises(StageFailed, match="not a valid TorchScript module") as caught:
        backend.load(tmp_path, TASK, 1)
    assert "\n" not in str(caught.value)


def test_an_archive_cut_anywhere_is_refused_before_torch(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("it was opened"))
    for size in range(0, len(whole), 7):
        (tmp_path / "model.pt").write_bytes(whole[:size])
        with pytest.raises(StageFailed, match="not a valid TorchScript module"):
            backend.load(tmp_path, TASK, 1)


@pytest.mark.parametrize("lost", ["data.pkl", "constants.pkl", "code/", "version"])
def test_an_archive_without_a_member_is_refused(tmp_path: Path, whole: bytes, lost: str) -> None:
    make(tmp_path)
    source = tmp_path / "whole.pt"
    source.write_bytes(whole)
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "model.pt", "w") as after:
        for name in before.namelist():
            if not (name.partition("/")[2].startswith(lost) or name.endswith("/" + lost)):
                after.writestr(name, before.read(name))
    with pytest.raises(StageFailed, match=f"an archive without .*{lost}"):
        backend.load(tmp_path, TASK, 1)


def test_damage_inside_is_a_failed_stage(tmp_path: Path, whole: bytes) -> None:
    make(tmp_path)
    source = tmp_path / "whole.pt"
    source.write_bytes(whole)
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "model.pt", "w") as after:
        for name in before.namelist():
            after.writestr(name, b"\x80\x02garbage" if name.endswith("/data.pkl") else before.read(name))
    with pytest.raises(StageFailed, match="not a valid TorchScript module"):
        backend.load(tmp_path, TASK, 1)


def test_missing_parts_say_so(tmp_path: Path) -> None:
    Card("torchscript", runtime=RUNTIME).write(tmp_path)
    with pytest.raises(StageFailed, match="no such file"):
        backend.load(tmp_path, TASK, 1)
    make(tmp_path, runtime={})
    with pytest.raises(StageFailed, match="its card names no inputs and outputs"):
        backend.load(tmp_path, TASK, 1)


def test_a_card_of_another_module_is_refused(tmp_path: Path) -> None:
    make(tmp_path, runtime={**RUNTIME, "inputs": ["input_ids"]})
    with pytest.raises(StageFailed, match="it takes input_ids, attention_mask, its card names input_ids"):
        backend.load(tmp_path, TASK, 1)
    make(tmp_path, runtime={**RUNTIME, "outputs": ["logits"]})
    with pytest.raises(StageFailed, match="does not give a tuple of 1"):
        backend.load(tmp_path, TASK, 1)
    make(tmp_path)
    with pytest.raises(StageFailed, match="the model gives logits, more, the task reads start_logits"):
        backend.load(tmp_path, SimpleNamespace(outputs=("start_logits",)), 1)


def test_a_batch_it_cannot_take_is_a_failed_stage(tmp_path: Path) -> None:
    session = backend.load(make(tmp_path), TASK, 1)
    with pytest.raises(
        StageFailed, match=r"does not run on input_ids 1x3, attention_mask 1x2: The size of tensor a"
    ) as caught:
        session({**ids([1, 2, 3]), "attention_mask": np.ones((1, 2), dtype=np.int64)})
    assert "\n" not in str(caught.value)


def test_instruction_sets_that_are_not_here_are_missing(tmp_path: Path) -> None:
    make(tmp_path, needs=("no_such_set|nor_this",))
    with pytest.raises(BackendMissing, match="no_such_set"):
        backend.load(tmp_path, TASK, 1)
    make(tmp_path, needs=("no_such_set|" + host.isa()[0],))
    assert backend.load(tmp_path, TASK, 1).inputs


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Give a real encoder, traced and frozen."""

    @cache
    def give() -> Path:
        from cpu_pipeline.stages._trace import trace

        out = tmp_path_factory.mktemp("traced")
        task = QuestionAnswering()
        module = hf.checkpoint(models.make("bert", tmp_path_factory.mktemp("hf")), task)
        names = hf.inputs_of(module)
        torch.jit.save(torch.jit.freeze(trace(module, names, task.outputs)), out / "model.pt")
        Card("torchscript", runtime={"inputs": list(names), "outputs": list(task.outputs)}).write(out)
        return out

    return give


def test_it_is_ready_when_loaded_and_new_shapes_make_no_new_plan(traced: Callable[[], Path]) -> None:
    session = backend.load(traced(), QuestionAnswering(), 1)

    def plans() -> list[str]:
        # torch fails an assertion of its own here as long as there is no optimized plan.
        return [str(plan.graph) for plan in session.module.get_debug_state().execution_plans.values()]

    ready = plans()
    assert len(ready) == 1
    for batch, length in ((1, 5), (2, 9), (3, 17), (1, 64), (4, 33), (2, 9)):
        array = np.full((batch, length), 7, dtype=np.int64)
        session({name: array if name == "input_ids" else np.ones_like(array) for name in session.inputs})
    assert plans() == ready
    # Nothing in it holds for some shapes only.
    assert not any(kind in ready[0] for kind in ("TypeCheck", "TensorExprGroup", "BailOut", "prim::profile"))


def test_the_fuser_is_told_not_to_compile_for_each_shape(
    traced: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr(torch.jit, "set_fusion_strategy", said.append)
    backend.load(traced(), None, 1)
    assert said == [[("DYNAMIC", 1)]]


def test_a_kept_checkpoint_runs_eagerly(tmp_path: Path) -> None:
    task = QuestionAnswering()
    models.make("roberta", tmp_path)
    Card("torchscript", runtime={"eager": True}).write(tmp_path)
    given = ids([0, 50, 60, 2])
    ours, theirs = backend.load(tmp_path, task, 1), hf.load(tmp_path, task, 1)
    assert ours.inputs == theirs.inputs == ("input_ids", "attention_mask")
    assert all(np.array_equal(value, theirs(given)[name]) for name, value in ours(given).items())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StageFailed, match="not a valid checkpoint"):
        backend.load(tmp_path, task, 1)


def test_what_the_report_says_to_do_works(traced: Callable[[], Path], tmp_path: Path) -> None:
    folder = traced()
    (folder / "tokenizer.json").write_bytes((models.make("bert", tmp_path) / "tokenizer.json").read_bytes())
    names: dict[str, Any] = {}
    exec(backend.usage(str(folder), QuestionAnswering()), names)
    assert [answer.shape[0] for answer in names["outputs"]] == [1, 1]
    assert "start_logits, end_logits" in backend.usage("x", QuestionAnswering()) and backend.usage("x", None)
