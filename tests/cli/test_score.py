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


def _squad(version: str | None, *answers: str) -> str:
    """Write SQuAD's own JSON of two questions, the second without an answer where one answer is given."""
    golds = [[{"text": text, "answer_start": 0}] for text in answers]
    questions = [
        {"id": name, "question": "?", "answers": gold, "is_impossible": not gold}
        for name, gold in zip("ab", [*golds, []][:2], strict=True)
    ]
    data = [{"title": "t", "paragraphs": [{"context": "c", "qas": questions}]}]
    return json.dumps({"data": data, **({"version": version} if version else {})})


@pytest.mark.parametrize("version", ["v2.0", "2.0", None])
def test_squad_s_version_is_that_of_the_file(tmp_path: Path, version: str | None) -> None:
    """Figures of SQuAD 2.0's evaluation: one is half right, and the other rightly left without an answer."""
    two = _squad(version, "red house")
    said = json.loads(_run(tmp_path, "question-answering", two, '{"a": "house", "b": ""}', "--json").stdout)
    half = pytest.approx(2 / 3)
    assert said["metrics"] == {
        "f1": pytest.approx((2 / 3 + 1) / 2), "exact_match": 0.5,
        "HasAns_f1": half, "HasAns_exact": 0, "NoAns_f1": 1, "NoAns_exact": 1,
    }  # fmt: skip
    with pytest.raises(RecipeError, match="row b: a question without an answer needs the task's option `version: 2`"):
        _run(tmp_path, "question-answering", two, "{}", "--set", "version=1")


def test_squad_1_stays_1(tmp_path: Path) -> None:
    """1.1 takes an answer that normalises to nothing as wrong, 2.0 as a match of nothing."""
    for version, f1 in (("1.1", 0.5), (None, 0.5), ("v2.0", 1.0)):
        one = _squad(version, "The", "red")
        said = json.loads(_run(tmp_path, "question-answering", one, '{"a": "a", "b": "red"}', "--json").stdout)
        assert said["metrics"]["f1"] == f1
    with pytest.raises(RecipeError, match=r"SQuAD's version '3.0' is not known"):
        _run(tmp_path, "question-answering", _squad("3.0", "a", "b"), "{}")


def test_json_lines_with_a_question_without_an_answer_are_squad_2(tmp_path: Path) -> None:
    none = {**SQUAD, "id": "b", "answers": {"text": [], "answer_start": []}}
    lines = json.dumps(SQUAD) + "\n" + json.dumps(none)
    said = json.loads(_run(tmp_path, "question-answering", lines, '{"a": "red house", "b": "x"}', "--json").stdout)
    assert said["metrics"]["NoAns_f1"] == 0 and said["metrics"]["HasAns_f1"] == 1


def test_numbers_and_sets_of_labels_are_scored_too(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": str(i), "text": "", "label": i / 2}) + "\n" for i in range(4))
    said = "".join(json.dumps({"id": str(i), "value": i / 2 + 0.5}) + "\n" for i in range(4))
    found = json.loads(_run(tmp_path, "text-classification", rows, said, "--json").stdout)["metrics"]
    assert (found["mae"], found["mse"], found["spearman"]) == (0.5, 0.25, 1)
    rows = '{"id": "a", "text": "", "label": ["x", "y"]}\n{"id": "b", "text": "", "label": []}\n'
    said = '{"id": "a", "labels": ["X"]}\n{"id": "b", "labels": []}\n'
    found = json.loads(_run(tmp_path, "text-classification", rows, said, "--json").stdout)["metrics"]
    assert (found["exact_match"], found["f1_micro"]) == (0.5, pytest.approx(2 / 3))


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
