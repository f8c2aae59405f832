"""Data roles share no row."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline import tasks
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import ROWS, write_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.apart import LoadApart
from cpu_pipeline.stages.load.rows import ORIGIN

numbers = count()


def rows(home: Path, entries: dict[str, str], origin: str | None = None) -> Artifact:
    path = home / str(next(numbers))
    path.mkdir()
    write_jsonl(path / ROWS, [{"id": name, "text": text} for name, text in entries.items()])
    if origin:
        (path / ORIGIN).write_text(json.dumps({"files": origin}))
    return Artifact("rows", path, "", {})


def check(home: Path, **roles: Artifact) -> Any:
    out = home / str(next(numbers))
    out.mkdir()
    LoadApart().run(roles, out, Job(load=None, timer=None))  # type: ignore[arg-type]
    return json.loads((out / "apart.json").read_text())


def test_roles_apart_are_counted(tmp_path: Path) -> None:
    said = check(
        tmp_path,
        training=rows(tmp_path, {"a": "1", "b": "1"}),
        calibration=rows(tmp_path, {"c": "2"}),
        validation=rows(tmp_path, {"d": "3"}),
    )
    assert said["rows"] == {"training": 2, "calibration": 1, "validation": 1}
    assert said["apart"] == ["training and calibration", "training and validation", "calibration and validation"]


@pytest.mark.parametrize("first", ["training", "calibration", "selection"])
def test_a_shared_id_is_refused(tmp_path: Path, first: str) -> None:
    one, other = rows(tmp_path, {"a": "1", "b": "2"}), rows(tmp_path, {"c": "3", "b": "4"})
    with pytest.raises(RecipeError, match=rf"data\.{first} and data\.validation share 1 of 2 rows, such as 'b'"):
        check(tmp_path, **{first: one, "validation": other})


def test_shared_content_is_refused_whatever_its_id(tmp_path: Path) -> None:
    one, other = rows(tmp_path, {"a": "1", "b": "2"}), rows(tmp_path, {"c": "2", "d": "2", "e": "3"})
    with pytest.raises(RecipeError, match=r"data\.calibration and data\.selection share 2 of 3 rows, such as 'c'"):
        check(tmp_path, calibration=one, selection=other)


def test_made_ids_mean_nothing_beside_those_of_other_files(tmp_path: Path) -> None:
    one = rows(tmp_path, {"train-0": "1"}, "first")
    check(tmp_path, calibration=one, validation=rows(tmp_path, {"train-0": "2"}, "second"))
    check(tmp_path, calibration=one, validation=rows(tmp_path, {"train-0": "2"}))
    with pytest.raises(RecipeError, match="share 1 of 1"):
        check(tmp_path, calibration=one, validation=rows(tmp_path, {"train-0": "2"}, "first"))
    with pytest.raises(RecipeError, match="share 1 of 1"):
        check(tmp_path, calibration=one, validation=rows(tmp_path, {"train-9": "1"}, "second"))


def test_one_role_or_none_is_apart(tmp_path: Path) -> None:
    assert check(tmp_path, validation=rows(tmp_path, {"a": "1"}))["apart"] == []
    assert check(tmp_path) == {"apart": [], "rows": {}}


QUESTION = {
    "question": "Who won?",
    "context": "The Straße team won.",
    "answers": {"text": ["team"], "answer_start": [0]},
}
PAIR = {"sentence1": "a", "sentence2": "b", "score": 1}
TOKENS = {"tokens": ["Ab", "c"], "tags": ["O", "O"]}
SAME: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "white space": ("text-classification", {"text": "a good  film "}, {"text": "a\u00a0good\tfilm"}),
    "case": ("text-classification", {"text": "A good film"}, {"text": "a GOOD film"}),
    "zero-width": ("text-classification", {"text": "a good film"}, {"text": "a go\u200bod\ufeff film\u2060"}),
    "soft hyphen": ("text-classification", {"text": "a good film"}, {"text": "a go\u00adod film\ufe0f"}),
    "another label": ("text-classification", {"text": "a", "label": "x"}, {"text": "a", "label": "y"}),
    "NFKC": ("text-classification", {"text": "ﬁlm №1"}, {"text": "film No1"}),
    "another answer": ("question-answering", QUESTION, {**QUESTION, "answers": {"text": [], "answer_start": []}}),
    "casefold": ("question-answering", QUESTION, {**QUESTION, "context": "the STRASSE team won."}),
    "pair": ("sentence-similarity", PAIR, {"sentence1": "A", "sentence2": "b", "score": 0}),
    "tokens": ("token-classification", TOKENS, {"tokens": ["ab", "C"], "tags": ["B-X", "O"]}),
    "image": ("image-classification", {"image": "files/ab.png", "label": "x"}, {"image": "files/ab.png", "label": "y"}),
}  # fmt: skip
OTHER: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a word": ("text-classification", {"text": "a good film"}, {"text": "a bad film"}),
    "another question": ("question-answering", QUESTION, {**QUESTION, "question": "Who lost?"}),
    "another context": ("question-answering", QUESTION, {**QUESTION, "context": "Nobody won."}),
    "split words": ("text-classification", {"text": "notable"}, {"text": "not able"}),
    "pair": ("sentence-similarity", {"sentence1": "a", "sentence2": "b"}, {"sentence1": "a", "sentence2": "c"}),
}


def compared(home: Path, task: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    roles = {}
    for role, row in (("calibration", one), ("validation", other)):
        path = home / str(next(numbers))
        path.mkdir()
        write_jsonl(path / ROWS, [{"id": role, **row}])
        roles[role] = Artifact("rows", path, "", {})
    out = home / str(next(numbers))
    out.mkdir()
    LoadApart().run(roles, out, Job(load=None, timer=None, task=tasks.get(task)()))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", SAME.values(), ids=SAME.keys())
def test_rows_with_the_same_inputs_are_the_same(
    tmp_path: Path, case: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    with pytest.raises(RecipeError, match="share 1 of 1 rows"):
        compared(tmp_path, *case)


@pytest.mark.parametrize("case", OTHER.values(), ids=OTHER.keys())
def test_rows_with_other_inputs_are_not(tmp_path: Path, case: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    compared(tmp_path, *case)
