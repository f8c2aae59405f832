"""Regressions, sets of labels and schemes of tags, from a recipe to int8, held against transformers' own answers.

A candidate that is broken in a way that a head judged by its largest value would not show is caught by its gate.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, mean_squared_error, r2_score

RECIPE = """
model: {{folder: model}}
teacher: {{folder: broken}}
task: {task}
data:
  calibration: {{file: calibration.csv}}
  validation: {{file: validation.csv}}
stages:
  - {{id: onnx, use: export.onnx, from: {{model: model}}}}
  - {{id: int8, use: quantize.onnx, from: {{model: onnx}}, with: {{mode: static, samples: 32}}}}
  - {{id: openvino, use: export.openvino, from: {{model: model}}}}
  - {{id: openvino-int8, use: quantize.openvino, from: {{model: openvino}}}}
  - {{id: agreement, use: validate.agreement, from: {{candidate: int8, reference: model}}, with: {{{agreement}}}}}
  - {{id: int8-right, use: validate.accuracy, from: {{candidate: int8, reference: model}}, with: {{{right}}}}}
  - id: openvino-right
    use: validate.accuracy
    from: {{candidate: openvino-int8, reference: model}}
    with: {{{right}}}
  - id: usual
    use: validate.accuracy
    from: {{candidate: int8, reference: model}}
    with: {{max_drop: 0.2, drop: relative}}
{more}outputs: [int8, openvino-int8]
"""
BROKEN = (
    "  - {{id: broken, use: validate.accuracy, from: {{candidate: teacher, reference: model}}, with: {{{right}}}}}\n"
)
NAMES = ("toxic", "insult", "threat")


@dataclass(frozen=True)
class Kind:
    """A kind of text-classification: its head, what rows say of it, and gates that fit it."""

    head: Mapping[str, Any]
    """What config.json says."""
    label: Callable[[np.ndarray], str]
    """Logits of one row as transformers gives them -> the right answer, as a cell of a CSV."""
    agreement: str
    right: str
    metric: str
    """What the gate of a broken candidate is about."""


def _vector(logits: np.ndarray) -> str:
    return json.dumps([int(value >= 0) for value in logits])


KINDS = {
    "regression": Kind(
        {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": "regression"},
        lambda logits: f"{logits[0]:.6f}",
        "max_difference: 0.5",
        "metric: mse, at_most: 0.05",
        "mse",
    ),
    "multi": Kind(
        {
            "id2label": dict(enumerate(NAMES)),
            "label2id": {name: i for i, name in enumerate(NAMES)},
            "problem_type": "multi_label_classification",
        },
        _vector,
        "same_top: 0.7",
        "metric: 'f1:threat', max_drop: 0.15",
        "f1:threat",
    ),
}


@dataclass(frozen=True)
class Project:
    """A folder with a model, a broken one, rows and a recipe."""

    home: Path
    kind: Kind
    logits: np.ndarray
    """Transformers' own, of each validation row: shape (rows, outputs)."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cpu_pipeline", *arguments]
        return subprocess.run(command, cwd=self.home, capture_output=True, text=True, env=os.environ.copy())

    def write(self, more: str = "") -> None:
        kind = self.kind
        written = RECIPE.format(task="text-classification", agreement=kind.agreement, right=kind.right, more=more)
        (self.home / "recipe.yaml").write_text(written)


def _texts(count: int, seed: int) -> list[str]:
    return [row["text"] for row in models.rows("text-classification", count, seed)]


def _answers(model: Path, texts: Sequence[str]) -> np.ndarray:
    """Ask transformers alone, one text at a time: logits of shape (texts, outputs)."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    module = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.inference_mode():
        return np.stack([module(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


def _centre(model: Path, texts: Sequence[str]) -> None:
    """Move the head's bias so that each output is above 0 for half of the texts, and spread by 1 or so."""
    logits = _answers(model, texts)
    tensors = load_file(model / "model.safetensors")
    scale = 1 / logits.std(axis=0)
    tensors["classifier.bias"] = ((tensors["classifier.bias"] - np.median(logits, axis=0)) * scale).astype(np.float32)
    tensors["classifier.weight"] = (tensors["classifier.weight"] * scale[:, None]).astype(np.float32)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def _break(model: Path, broken: Path) -> None:
    """Shift the last output: the order of a regression's numbers stays, and so does a row's largest label, mostly."""
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    tensors["classifier.bias"][-1] -= 3.0
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=KINDS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    home, kind = tmp_path_factory.mktemp(request.param), KINDS[request.param]
    model = models.make("bert", home / "model", "text-classification", **kind.head)
    _centre(model, _texts(100, 9))
    _break(model, home / "broken")
    for role, count, seed in (("calibration", 40, 1), ("validation", 150, 2)):
        texts = _texts(count, seed)
        logits = _answers(model, texts)
        with (home / f"{role}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "label"])
            cells = zip(texts, map(kind.label, logits), strict=True)
            writer.writerows([f"{role}-{i}", *both] for i, both in enumerate(cells))
    made = Project(home, kind, logits)
    made.write()
    done = made.run("run", "recipe.yaml", "--store", "store")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def _facts(project: Project, gate: str) -> dict[str, Any]:
    report = project.home / "artifacts" / "recipe" / "latest" / "manifest.json"
    found: dict[str, Any] = json.loads(report.read_text())
    key = found["steps"][gate]["key"]
    record = json.loads((project.home / "store" / "actions" / key[:2] / f"{key}.json").read_text())
    facts: dict[str, Any] = record["facts"]
    return facts


def test_the_reference_scores_as_transformers_answers_do(project: Project) -> None:
    """The right answers are transformers' own, so that a reference that is fed otherwise is not fully right."""
    found = {name: one["reference"] for name, one in _facts(project, "int8-right")["metrics"].items()}
    if project.kind.metric == "mse":
        assert found["mse"] < 1e-9 and found["mae"] < 1e-5 and found["r2"] > 1 - 1e-9 and found["spearman"] == 1
    else:
        assert set(found.values()) == {1.0} and set(found) >= {
            "f1_micro",
            "f1_macro",
            "exact_match",
            "mAP",
            "f1:threat",
        }


def test_the_figures_of_int8_are_those_of_scikit_learn(project: Project) -> None:
    found = {name: one["candidate"] for name, one in _facts(project, "int8-right")["metrics"].items()}
    predictions = _predictions(project)
    if project.kind.metric == "mse":
        gold, values = project.logits[:, 0].round(6), [one["value"] for one in predictions]
        assert found["mse"] == pytest.approx(mean_squared_error(gold, values), rel=1e-4)
        assert found["r2"] == pytest.approx(r2_score(gold, values), rel=1e-4)
        assert found["spearman"] == pytest.approx(spearmanr(gold, values).statistic, rel=1e-4)
        assert 0 < found["mse"] < 0.05
    else:
        gold = project.logits >= 0
        chosen = np.array([[name in one["labels"] for name in NAMES] for one in predictions])
        scores = np.array([[one["scores"][name] for name in NAMES] for one in predictions])
        assert found["f1_micro"] == pytest.approx(f1_score(gold, chosen, average="micro"))
        assert found["f1_macro"] == pytest.approx(f1_score(gold, chosen, average="macro"))
        assert found["mAP"] == pytest.approx(average_precision_score(gold, scores, average="macro"))
        assert found["f1:threat"] == pytest.approx(f1_score(gold[:, 2], chosen[:, 2]))


def _predictions(project: Project) -> list[dict[str, Any]]:
    """Read what int8 answered, in the rows' order."""
    key = json.loads((project.home / "artifacts" / "recipe" / "latest" / "manifest.json").read_text())
    digest = key["steps"]["predict:int8"]["digest"]
    path = project.home / "store" / "objects" / digest[:2] / digest / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_candidate_that_is_broken_is_caught(project: Project) -> None:
    before = (project.home / "artifacts" / "recipe" / "latest").resolve()
    project.write(BROKEN.format(right=project.kind.right))
    try:
        done = project.run("run", "recipe.yaml", "--store", "store")
    finally:
        project.write()
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"step `broken`: {project.kind.metric} " in done.stderr
    assert (project.home / "artifacts" / "recipe" / "latest").resolve() == before


def test_the_report_says_how_it_was_scored(project: Project) -> None:
    report = (project.home / "artifacts" / "recipe" / "latest" / "report.md").read_text()
    about = {"mse": "Regression: each answer is a number", "f1:threat": "Multi-label: each answer is a set of labels"}
    assert about[project.kind.metric] in report
