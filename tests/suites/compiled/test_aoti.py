"""compile.aoti beyond plain float32: bfloat16, other targets, other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import models
import pytest

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_file
from cpu_pipeline.runtime import parity

Compiled = Callable[..., Artifact]
ELSEWHERE = """
import sys
from pathlib import Path
import models, torch
from cpu_pipeline.core import host
from cpu_pipeline.backends import hf
from cpu_pipeline.stages.compile import _inductor
from cpu_pipeline.stages.compile._toolchain import toolchain
from cpu_pipeline.tasks.question_answering import QuestionAnswering
task, out = QuestionAnswering(), Path(sys.argv[1])
torch.set_num_threads(2)
model = hf.checkpoint(models.make("bert", out / "checkpoint", "question-answering"), task)
module, names, example = _inductor.prepare(model, task.outputs)
tools = toolchain("x", host.TARGETS["avx2"], "float32")
program = _inductor.export_program("x", module, names, example)
_inductor.compile_program("x", program, out, tools, options={"freezing": True})
"""
HELD = """
import sys
from pathlib import Path
from cpu_pipeline.runtime import parity
from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.tasks.question_answering import QuestionAnswering
task, (made, source) = QuestionAnswering(), map(Path, sys.argv[1:])
parity.parity(pt2.load(made, task, 1), hf.load(source, task, 1), source, task, 1e-4, "held to AVX2")
"""
ROOT = Path(parity.__file__).parents[2]


@pytest.mark.skipif(bool(host.missing(host.TARGETS["avx512"])), reason="bfloat16 needs AVX-512 here")
def test_bfloat16_is_near_and_smaller_than_its_tolerance(compiled: Compiled) -> None:
    facts = compiled("compile.aoti", "roberta", dtype="bfloat16").facts
    assert 1e-4 < facts["parity"]["max_abs"] < 0.2 and facts["parity"]["nonfinite"] == 0
    assert set(facts["needs"]) >= set(host.TARGETS["avx512"])


def test_an_older_target_runs_where_that_is_all_there_is(compiled: Compiled, source: Callable[[str], Artifact]) -> None:
    artifact = compiled("compile.aoti", "bert", "avx2")
    assert artifact.facts["needs"] == list(host.TARGETS["avx2"])
    held = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HELD, artifact.path, source("bert").path]
    subprocess.run(command, env={**os.environ, **held}, check=True)


def test_another_process_in_another_place_compiles_the_same_bytes(compiled: Compiled, tmp_path: Path) -> None:
    code = tmp_path / "clone"
    shutil.copytree(ROOT / "cpu_pipeline", code / "cpu_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(models.__file__, code)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(code), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path], cwd=tmp_path, env=environment, check=True)
    here = compiled("compile.aoti", "bert", "avx2").path
    assert digest_file(tmp_path / "model.pt2") == digest_file(here / "model.pt2")


def test_without_freezing_it_answers_the_same(compiled: Compiled) -> None:
    assert compiled("compile.aoti", "distilbert", freezing=False).facts["parity"]["max_abs"] < 2e-5
