"""docs/cpp/aoti.cpp: the same answers as the Python backend, padded or not; broken files are errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.compile.aoti import CompileAoti
from cpu_pipeline.tasks._synthetic import tokens
from cpu_pipeline.tasks.question_answering import QuestionAnswering

Program = Callable[[str], Path]
TASK = QuestionAnswering()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    source = Artifact("hf", models.make("bert", tmp_path_factory.mktemp("hf"), "question-answering"), "", {})
    backends = {"hf": hf, "pt2": pt2}
    job = Job(load=lambda a: backends[a.format].load(a.path, TASK, 1), timer=None, task=TASK, isa=host.isa())
    CompileAoti().run({"model": source}, out, job)
    return out


def read(said: str) -> list[np.ndarray]:
    """Read what the program printed: a line with the shape before the numbers of each output."""
    answers = []
    for part in said.split("shape ")[1:]:
        shape, _, numbers = part.partition("\n")
        answers.append(np.array(numbers.split(), dtype=np.float32).reshape([int(size) for size in shape.split()]))
    return answers


def test_the_program_answers_as_the_backend_does(program: Program, compiled: Path, tmp_path: Path) -> None:
    session = pt2.load(compiled, TASK, 1)
    for batch in tokens(compiled, [(1, 6), (3, 40), (2, 200)]):
        arrays = pad(batch, session.inputs, TASK.input_kinds(compiled))
        shape = arrays["input_ids"].shape
        numbers = [*shape, *(value for name in session.inputs for value in arrays[name].ravel())]
        (tmp_path / "tokens.txt").write_text(" ".join(map(str, numbers)))
        command = [program("aoti"), compiled / pt2.MODEL, tmp_path / "tokens.txt"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for ours, theirs in zip(read(done.stdout), session(arrays).values(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("broken", ["model", "tokens"])
def test_broken_files_are_errors(program: Program, compiled: Path, tmp_path: Path, broken: str) -> None:
    model, tokens = tmp_path / "model.pt2", tmp_path / "tokens.txt"
    model.write_bytes(b"garbage" if broken == "model" else (compiled / pt2.MODEL).read_bytes())
    tokens.write_text("1 3 1 2" if broken == "tokens" else "1 2 1 2 1 1 0 0")
    done = subprocess.run([program("aoti"), model, tokens], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("aoti: ") == 1
