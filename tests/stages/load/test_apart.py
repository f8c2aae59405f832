"""Data roles share no row."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

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
    assert check(tmp_path) == {"apart": [], "near": [], "rows": {}}
