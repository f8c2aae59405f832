"""docs/cpp/torchscript.cpp: the same answers as the Python backend, padded or not; broken files are errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from cpu_pipeline.backends import torchscript as backend
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.export.torchscript import ExportTorchscript
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.text_classification import TextClassification

Program = Callable[[str], Path]
TASKS = {"question-answering": QuestionAnswering(), "text-classification": TextClassification()}
CASES = [("bert", "question-answering", "float32"), ("roberta", "text-classification", "bfloat16")]
PAIRS = (("who won?", "anna won the old red bridge in paris."), ("where?", "lima"))
WRITER = Path(__file__).parents[3] / "docs" / "cpp" / "tokens.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def give(kind: str, task: str, dtype: str) -> Path:
        out = tmp_path_factory.mktemp("out")
        source = Artifact("hf", models.make(kind, tmp_path_factory.mktemp("hf"), task), "", {})
        job = Job(load=lambda a: backend.load(a.path, TASKS[task], 1), timer=None, task=TASKS[task])
        ExportTorchscript(dtype=dtype).run({"model": source}, out, job)
        return out

    return give


def write_tokens(artifact: Path, path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Write the pairs with the program that the README names; return the same numbers by name."""
    said = [*PAIRS[0], "--", *PAIRS[1]]
    done = subprocess.run([sys.executable, WRITER, artifact, *said], capture_output=True, text=True, check=True)
    path.write_text(done.stdout)
    numbers = [int(word) for word in done.stdout.split()]
    values = np.array(numbers[2:], dtype=np.int64).reshape(-1, *numbers[:2])
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), values, strict=True))


def answers(text: str) -> list[np.ndarray[Any, Any]]:
    """Read what a program printed."""
    found = []
    for block in text.split("shape ")[1:]:
        shape, _, values = block.partition("\n")
        found.append(np.array(values.split(), dtype=np.float32).reshape([int(size) for size in shape.split()]))
    return found


@pytest.mark.parametrize(("kind", "task", "dtype"), CASES)
def test_it_answers_as_python_does(
    program: Program, exported: Callable[..., Path], tmp_path: Path, kind: str, task: str, dtype: str
) -> None:
    artifact = exported(kind, task, dtype)
    given = write_tokens(artifact, tmp_path / "tokens.txt")
    assert (given["attention_mask"].sum(1) != given["attention_mask"].shape[1]).any(), "nothing is padded"
    session = backend.load(artifact, TASKS[task], 1)
    expected = session({name: given[name] for name in session.inputs})
    command = [program("torchscript"), artifact / "model.pt", tmp_path / "tokens.txt"]
    printed = answers(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    names = Card.read(artifact, "torchscript").runtime["outputs"]
    assert len(printed) == len(names) == len(TASKS[task].outputs)
    for name, found in zip(names, printed, strict=True):
        assert found.shape == expected[name].shape
        assert np.abs(found - expected[name]).max() < 1e-4
    assert np.abs(printed[0]).max() > 0.01


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must begin with batch and length"),
        ("2 -1", "must begin with batch and length"),
        ("1 3 5 6 7 1 1", "attention_mask is cut"),
        ("1 3 5 6 seven 1 1 1", "input_ids is cut or holds something else"),
        ("1 3 5 6 7", "no attention mask"),
        ("1 3 5 6 7 1 1 1", "there is no token_type_ids"),
    ],
)
def test_a_broken_file_is_an_error(
    program: Program, exported: Callable[..., Path], tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "tokens.txt").write_text(text)
    command = [program("torchscript"), exported(*CASES[0]) / "model.pt", tmp_path / "tokens.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("torchscript: ") and says in done.stderr
