"""compile.aoti: right and dynamic, refused early where it can't be built, and bound to what it was compiled for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cpu_pipeline.backends import hf
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.compile import _inductor, _toolchain
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
        _toolchain.compiler("compile.aoti", "-mavx2")


def test_the_level_is_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "isa", lambda: host.TARGETS["amx"])
    assert _toolchain.level("x", host.TARGETS["avx2"], "float32").needs == host.TARGETS["avx2"]
    assert _toolchain.level("x", host.TARGETS["amx"], "float32").needs == host.TARGETS["avx512"]
    mixed = _toolchain.level("x", host.TARGETS["amx"], "bfloat16")
    assert mixed.needs == (*host.TARGETS["avx512"], "avx512_bf16") and mixed.flags.endswith("-mavx512bf16")
    assert _toolchain.level("x", host.TARGETS["avx512"], "bfloat16").needs == host.TARGETS["avx512"]
    with pytest.raises(BackendMissing, match="bfloat16 on AVX-512 or ARM's bf16, and the target has neither"):
        _toolchain.level("x", host.TARGETS["avx2"], "bfloat16")
    with pytest.raises(BackendMissing, match="the target has aarch64, asimd, which this CPU lacks"):
        _toolchain.level("x", host.TARGETS["neon"], "float32")
    with pytest.raises(BackendMissing, match="compiles for AVX2, AVX-512 and ARM's NEON; the target names x86_64"):
        _toolchain.level("x", ("x86_64", "sse4_2"), "float32")


def test_what_torch_cannot_export_is_a_failed_stage() -> None:
    class Odd(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.tensor([float(str(input_ids.sum().item()))])

    with pytest.raises(StageFailed, match=r"torch\.export does not take this model"):
        _inductor.export_program("x", Odd(), ["input_ids"], {"input_ids": torch.ones((2, 3), dtype=torch.int64)})


def test_a_recipe_without_a_task_is_wrong(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    source = checkpoint("bert", QA)
    before = digest_tree(source.path)
    with pytest.raises(RecipeError, match="names no task"):
        CompileAoti().run({"model": source}, out, job(QA, task=None))
    assert digest_tree(source.path) == before


def test_torch_is_the_version_that_inductors_private_parts_were_read_for() -> None:
    """Fails when torch moves: then somebody has to look again, for nothing else notices bytes that differ.

    To re-check with the new version: (1) each of `PRIVATE` is still there and read where `reproducible_inductor`
    replaces it; (2) each of `OPTIONS` is still in torch/_inductor/config.py and means the same; (3) the suites
    `compiled` and `reproducible` pass (equal bytes from another directory, cache and number of threads); (4) the
    version of `compile.aoti` and `quantize.pt2e` is raised if their bytes changed. Then set `CHECKED_TORCH`.
    """
    found = torch.__version__.partition("+")[0]
    assert found == _inductor.CHECKED_TORCH, f"torch is {found}: re-check what this test's docstring lists"


@pytest.mark.parametrize(("module", "name"), _inductor.PRIVATE)
def test_what_is_replaced_in_torch_is_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("option", [*_inductor.OPTIONS, "cpp.simdlen", "cpp.cxx", "freezing"])
def test_inductor_knows_each_option(option: str) -> None:
    from torch._inductor import config

    assert option in config.get_config_copy()


def test_everything_that_is_replaced_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpu_vec_isa
    from torch.utils import cpp_extension

    def seen() -> tuple[object, ...]:
        cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        return cpu_vec_isa.valid_vec_isa_list, cpp_extension.TORCH_LIB_PATH, cache, torch.get_num_threads()

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/the/users")
    before = seen()
    tools = _toolchain.Toolchain(_toolchain.LEVELS[1], "/usr/bin/g++", "g++")
    with pytest.raises(ZeroDivisionError), _inductor.reproducible_inductor(tools) as options:
        assert options["cpp.simdlen"] == 256 and torch.get_num_threads() == _inductor.THREADS
        assert seen()[0] is not before[0] and seen()[2] != "/the/users"
        raise ZeroDivisionError
    assert seen() == before
