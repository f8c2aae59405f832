"""compile.aoti: right and dynamic, refused early where it can't be built, and bound to what it was compiled for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cpu_pipeline.backends import hf
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.stages import _aoti
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.compile.aoti import CompileAoti

Built = Callable[..., Artifact]
QA = "question-answering"


def test_no_compiler_is_found_before_anything_is_loaded(
    checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(hf, "checkpoint", lambda *_: pytest.fail("the model was loaded first"))
    with pytest.raises(BackendMissing, match=r"no no-such-compiler here; install g\+\+ 11"):
        CompileAoti().run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_a_compiler_that_does_not_do_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\necho \"error: unrecognized option '-mavx2'\" >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(BackendMissing, match=r"does not compile C\+\+20 with OpenMP \(-mavx2\).*unrecognized option"):
        _aoti.compiler("compile.aoti", "-mavx2")


def test_the_level_is_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "isa", lambda: host.TARGETS["amx"])
    assert _aoti.level("x", host.TARGETS["avx2"], "float32").needs == host.TARGETS["avx2"]
    assert _aoti.level("x", host.TARGETS["amx"], "float32").needs == host.TARGETS["avx512"]
    mixed = _aoti.level("x", host.TARGETS["amx"], "bfloat16")
    assert mixed.needs == (*host.TARGETS["avx512"], "avx512_bf16") and mixed.flags.endswith("-mavx512bf16")
    assert _aoti.level("x", host.TARGETS["avx512"], "bfloat16").needs == host.TARGETS["avx512"]
    with pytest.raises(BackendMissing, match="bfloat16 on AVX-512 or ARM's bf16, and the target has neither"):
        _aoti.level("x", host.TARGETS["avx2"], "bfloat16")
    with pytest.raises(BackendMissing, match="the target has aarch64, asimd, which this CPU has not"):
        _aoti.level("x", host.TARGETS["neon"], "float32")
    with pytest.raises(BackendMissing, match="compiles for AVX2, AVX-512 and ARM's NEON; the target names x86_64"):
        _aoti.level("x", ("x86_64", "sse4_2"), "float32")


def test_what_torch_cannot_export_is_a_failed_stage() -> None:
    class Odd(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.tensor([float(str(input_ids.sum().item()))])

    with pytest.raises(StageFailed, match=r"torch\.export does not take this model"):
        _aoti.export("x", Odd(), ["input_ids"], {"input_ids": torch.ones((2, 3), dtype=torch.int64)})


def test_a_recipe_without_a_task_is_wrong(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    source = checkpoint("bert", QA)
    before = digest_tree(source.path)
    with pytest.raises(RecipeError, match="names no task"):
        CompileAoti().run({"model": source}, out, job(QA, task=None))
    assert digest_tree(source.path) == before
