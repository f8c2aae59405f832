"""Every row is answered once, in order, whatever order and group it ran in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from models import rows as make_rows

from cpu_pipeline.core import jsonl
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages import predict
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.predict import Predict
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification

TASKS: dict[str, tuple[str, Task]] = {
    "question-answering": ("bert", QuestionAnswering(max_seq_length=48, doc_stride=16)),
    "text-classification": ("distilbert", TextClassification()),
    "sentence-similarity": ("minilm", SentenceSimilarity()),
}


class Torch:
    """A session on the checkpoint itself."""

    def __init__(self, path: Path, task: Task) -> None:
        import torch
        import transformers

        self.model = getattr(transformers, task.auto_class).from_pretrained(path, dtype=torch.float32).eval()
        self.outputs = task.outputs
        self.inputs = ("input_ids", "attention_mask")
        self.widths: list[int] = []

    def __call__(self, arrays: Any, /) -> Any:
        import torch

        self.widths.append(arrays["input_ids"].shape[1])
        with torch.no_grad():
            said = self.model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        return {name: said[name].numpy() for name in self.outputs}


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Job, Torch]:
    kind, task = TASKS[request.param]
    root = tmp_path_factory.mktemp("predict")
    path = make(kind, root / "model", request.param)
    data = root / "rows.jsonl"
    jsonl.write_jsonl(data, make_rows(request.param, 30))
    session = Torch(path, task)

    def load(artifact: Artifact) -> Torch:
        assert artifact.path == path
        return session

    return Artifact("hf", path, "", {}), Job(load=load, timer=load, task=task, data={"validation": data}), session  # type: ignore[arg-type]


def _run(artifact: Artifact, job: Job, out: Path) -> tuple[Any, list[dict[str, Any]]]:
    out.mkdir()
    facts = Predict().run({"model": artifact}, out, job)
    assert [p.name for p in out.iterdir()] == ["predictions.jsonl"]
    return facts, jsonl.read_jsonl(out / "predictions.jsonl")


def test_each_row_has_the_answer_it_would_have_alone(made: tuple[Artifact, Job, Torch], tmp_path: Path) -> None:
    artifact, job, session = made
    facts, said = _run(artifact, job, tmp_path / "all")
    asked = jsonl.read_jsonl(job.data["validation"])
    assert [p["id"] for p in said] == [row["id"] for row in asked]
    assert facts.rows == 30
    assert facts.nan == 0
    assert facts.features >= 30
    assert facts.tokens > 5 * facts.features
    assert session.widths == sorted(session.widths, reverse=True)
    assert job.task is not None
    for row, prediction in zip(asked, said, strict=True):
        features = job.task.encode([row], artifact.path)
        outputs = [session({k: np.array([v]) for k, v in f.inputs.items() if k in session.inputs}) for f in features]
        [alone] = job.task.decode(
            [row], features, [{k: v[0] for k, v in one.items()} for one in outputs], artifact.path
        )
        for key, value in alone.items():
            assert prediction[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)


def test_small_groups_give_the_same_predictions(
    made: tuple[Artifact, Job, Torch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, job, session = made
    _, whole = _run(artifact, job, tmp_path / "whole")
    monkeypatch.setattr(predict, "TOKENS", 100)
    session.widths.clear()
    _, parts = _run(artifact, job, tmp_path / "parts")
    assert len(session.widths) > 4
    for one, other in zip(whole, parts, strict=True):
        assert set(one) == set(other)
        for key, value in one.items():
            assert other[key] == (pytest.approx(value, abs=1e-3) if isinstance(value, float) else value)


def test_nan_is_marked_and_counted(made: tuple[Artifact, Job, Torch], tmp_path: Path) -> None:
    artifact, job, session = made

    class Broken:
        inputs = session.inputs

        def __call__(self, arrays: Any, /) -> Any:
            return {name: np.full_like(value, math.nan) for name, value in session(arrays).items()}

    facts, said = _run(artifact, replace(job, load=lambda _: Broken()), tmp_path / "nan")
    assert facts.nan == 30
    assert all(prediction["nan"] is True for prediction in said)


def test_no_rows_are_no_predictions(made: tuple[Artifact, Job, Torch], tmp_path: Path) -> None:
    artifact, job, _ = made
    (tmp_path / "none.jsonl").write_text("")
    facts, said = _run(artifact, replace(job, data={"validation": tmp_path / "none.jsonl"}), tmp_path / "out")
    assert (facts.rows, facts.tokens, said) == (0, 0, [])


def test_promises() -> None:
    assert Predict.internal
    assert Predict().gives() == "predictions"
    assert Predict().host() == "isa"
    assert Predict().backends({"model": "onnx"}) == {"onnx"}
