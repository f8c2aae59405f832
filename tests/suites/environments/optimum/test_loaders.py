"""Finished artifacts load unchanged with Optimum's classes, work in transformers' pipelines, and answer as ours do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import models
import numpy as np
import pytest
from stages.conftest import job_for, task_named

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages.export.openvino import ExportOpenvino
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.stages.quantize.openvino import QuantizeOpenvino

Built = Callable[..., Artifact]
Answers = Mapping[tuple[str, str], dict[str, Any]]
KINDS = {
    "question-answering": "roberta",
    "text-classification": "distilbert",
    "token-classification": "bert",
    "sentence-similarity": "minilm",
}
WAYS = ("onnx", "onnx-int8", "openvino", "openvino-int8")
ROWS = 3
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def finished(checkpoint: Built, exported: Built, fused: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the artifact of a task in one of WAYS, made once as the pipelines make it."""

    @cache
    def give(task: str, way: str) -> Artifact:
        kind, out = KINDS[task], tmp_path_factory.mktemp(way)
        if way == "onnx":
            return exported(kind, task)
        if way == "onnx-int8":
            QuantizeOnnx(per_channel=True).run({"model": fused(kind, task)}, out, job_for(task))
        elif way == "openvino":
            ExportOpenvino().run({"model": checkpoint(kind, task)}, out, job_for(task))
        else:
            rows = models.write_rows(out.parent / f"{task}.jsonl", task, 8, seed=1)
            job = job_for(task, data={"calibration": rows})
            QuantizeOpenvino(subset=8).run({"model": give(task, "openvino")}, out, job)
        return Artifact(way.partition("-")[0], out, "", {})

    return give


@pytest.fixture(scope="session")
def answers(finished: Built, optimum: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Ask every artifact the same: through our backend, and through Optimum in a single process there.

    Task and way -> the rows, our answers (arrays of a batch, predictions) and Optimum's (arrays, what pipelines said).
    """
    place = tmp_path_factory.mktemp("answers")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    orders = []
    for task_name in KINDS:
        task, rows = task_named(task_name), models.rows(task_name, ROWS)
        for way in WAYS:
            artifact = finished(task_name, way)
            features = task.encode([{**task.row(row), "id": row["id"]} for row in rows], artifact.path)
            session = job_for(task_name).load(artifact)
            batch = pad(features, session.inputs, task.input_kinds(artifact.path))
            ours = session(batch)
            name = f"{task_name}-{way}"
            np.savez(place / f"{name}.given.npz", **batch)
            orders.append({"name": name, "task": task_name, "format": artifact.format, "path": str(artifact.path)})
            orders[-1]["rows"] = rows
            single = [session(pad([feature], session.inputs, task.input_kinds(artifact.path))) for feature in features]
            found[task_name, way] = {
                "rows": rows,
                "features": features,
                "ours": ours,
                "predictions": task.decode(rows, features, [_first(s) for s in single], artifact.path),
                "single": single,
            }
    (place / "orders.json").write_text(json.dumps(orders))
    optimum("answer.py", place)
    for (task_name, way), answer in found.items():
        with np.load(place / f"{task_name}-{way}.answers.npz") as held:
            answer["theirs"] = dict(held)
        answer["piped"] = json.loads((place / f"{task_name}-{way}.json").read_text())
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", KINDS)
def test_the_same_logits(answers: Answers, task: str, way: str) -> None:
    found = answers[task, way]
    for name, ours in found["ours"].items():
        assert found["theirs"][name].shape == ours.shape
        assert np.abs(found["theirs"][name] - ours).max() <= TOLERANCE, name


@pytest.mark.parametrize("way", WAYS)
def test_question_answering_finds_the_same_answers(answers: Answers, way: str) -> None:
    found = answers["question-answering", way]
    for said, ours in zip(found["piped"], found["predictions"], strict=True):
        assert (said["answer"], said["start"]) == (ours["prediction_text"], ours["start"])
    assert all(said["answer"] for said in found["piped"])


@pytest.mark.parametrize("way", WAYS)
def test_text_classification_gives_the_same_labels(answers: Answers, way: str) -> None:
    found = answers["text-classification", way]
    for (said,), ours in zip(found["piped"], found["predictions"], strict=True):
        assert said["label"] == ours["name"]
        assert said["score"] == pytest.approx(ours["score"], abs=TOLERANCE)


@pytest.mark.parametrize("way", WAYS)
def test_token_classification_gives_the_same_tags(answers: Answers, way: str) -> None:
    found = answers["token-classification", way]
    for said, ours in zip(found["piped"], found["predictions"], strict=True):
        # The tokenizer knows every word whole, so that token number i + 1 is word number i.
        tags = {entity["index"] - 1: entity["entity"] for entity in said}
        assert [tags.get(i, "O") for i in range(len(ours["tags"]))] == ours["tags"]
    assert any(found["piped"])


@pytest.mark.parametrize("way", WAYS)
def test_feature_extraction_gives_the_same_vectors(answers: Answers, way: str) -> None:
    found = answers["sentence-similarity", way]
    # The pipeline was given the first sentence of each pair; a pair is two features.
    for (said,), ours in zip(found["piped"], found["single"][::2], strict=True):
        assert np.abs(np.asarray(said) - ours["last_hidden_state"][0]).max() <= TOLERANCE


def _first(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[0] for name, value in arrays.items()}
