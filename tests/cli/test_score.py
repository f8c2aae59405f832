"""`cpu-pipeline score` prints what the field prints, and says what is wrong with its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cpu_pipeline.cli.score import score
from cpu_pipeline.core.errors import RecipeError

SQUAD = {"id": "a", "question": "?", "context": "c", "answers": {"text": ["red house"], "answer_start": [0]}}


def _run(tmp_path: Path, task: str, references: str, predictions: str, *options: str) -> Any:
    (tmp_path / "references").write_text(references)
    (tmp_path / "predictions").write_text(predictions)
    app = typer.Typer()
    app.command()(score)
    files = ["--references", str(tmp_path / "references"), "--predictions", str(tmp_path / "predictions")]
    result = CliRunner().invoke(app, [task, *files, *options])
    if isinstance(result.exception, RecipeError):
        raise result.exception
    return result


def test_question_answering_is_printed_in_percent(tmp_path: Path) -> None:
    result = _run(tmp_path, "question-answering", json.dumps(SQUAD), '{"a": "house"}')
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == ["f1           66.67 %", "exact_match  0.00 %"]
    assert "missing      0" in result.stdout.splitlines()


def test_json_has_fractions_and_null_for_nan(tmp_path: Path) -> None:
    result = _run(tmp_path, "question-answering", json.dumps(SQUAD), '{"b": "x"}', "--json", "--set", "version=2")
    said = json.loads(result.stdout)
    assert said["task"] == "question-answering"
    assert said["metrics"] == {"f1": 0, "exact_match": 0, "HasAns_f1": 0, "HasAns_exact": 0}
    assert said["counts"]["missing"] == 1
    row = {"id": "a", "sentence1": "", "sentence2": "", "score": 1}
    said = json.loads(
        _run(tmp_path, "sentence-similarity", json.dumps(row), '{"id": "a", "cosine": 1}', "--json").stdout
    )
    assert said["metrics"] == {"spearman": None, "pearson": None}


def test_other_tasks_are_printed_as_fractions(tmp_path: Path) -> None:
    rows = '{"id": "a", "text": "x", "label": "good"}\n{"id": "b", "text": "x", "label": "bad"}\n'
    said = '{"id": "a", "label": "good"}\n{"id": "b", "label": "good"}\n'
    result = _run(tmp_path, "text-classification", rows, said, "--set", "average=binary", "--set", "positive=good")
    assert result.stdout.splitlines()[:2] == ["accuracy  0.5000", "f1        0.6667"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("version", "write it as option=value"),
        ("version=3", "--set version: Input should be 1 or 2"),
        ("versoin=2", "--set versoin: .*question-answering has: version, max_seq_length"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, option: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        _run(tmp_path, "question-answering", json.dumps(SQUAD), "{}", "--set", option)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="references: row a: `question` is missing"):
        _run(tmp_path, "question-answering", '{"id": "a"}', "{}")
    with pytest.raises(RecipeError, match="predictions: entry 1 has no `id`"):
        _run(tmp_path, "text-classification", '{"id": "a", "text": "x", "label": 1}', '{"label": 1}')
    with pytest.raises(RecipeError, match="no task is called `question-anwsering`"):
        _run(tmp_path, "question-anwsering", json.dumps(SQUAD), "{}")


def test_an_absent_file_is_a_usage_error(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(score)
    result = CliRunner().invoke(
        app, ["question-answering", "--references", str(tmp_path / "no"), "--predictions", "no"]
    )
    assert result.exit_code == 2
