"""`without`: the rest of a file of which another role has a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.apart import LoadApart
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks.text_classification import TextClassification


def load(home: Path, out: Path, **options: Any) -> tuple[Artifact, Any]:
    out.mkdir()
    job = Job(load=None, timer=None, task=TextClassification())  # type: ignore[arg-type]
    facts = LoadRows(**options).run({"files": Artifact("files", home, "", {})}, out, job)
    return Artifact("rows", out, "", {}), facts


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    lines = [f"text {n % 90},{n % 2}" for n in range(100)]  # the last ten say what the first ten say
    (tmp_path / "data" / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path / "data"


@pytest.mark.parametrize("seed", [0, 1])
def test_two_roles_of_one_file_share_no_row_though_rows_are_there_twice(home: Path, tmp_path: Path, seed: int) -> None:
    some, taken = load(home, tmp_path / "some", role="calibration", take=30, seed=seed)
    rest, left = load(home, tmp_path / "rest", role="validation", without=30, seed=seed)
    (tmp_path / "apart").mkdir()
    LoadApart().run({"calibration": some, "validation": rest}, tmp_path / "apart", Job(None, None))  # type: ignore[arg-type]
    texts = {row["text"] for row in read_jsonl(some.path / "rows.jsonl")}
    every = {f"text {n}" for n in range(90)}
    assert {row["text"] for row in read_jsonl(rest.path / "rows.jsonl")} == every - texts
    assert taken.rows == 30 and left.rows == len(read_jsonl(rest.path / "rows.jsonl")) and left.total == 100


def test_a_sample_of_the_rest_is_part_of_it(home: Path, tmp_path: Path) -> None:
    rest = read_jsonl(load(home, tmp_path / "rest", without=30)[0].path / "rows.jsonl")
    part = read_jsonl(load(home, tmp_path / "part", without=30, take=20)[0].path / "rows.jsonl")
    assert all(row in rest for row in part) and 10 < len(part) <= 20


def test_too_many_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="without: 100 leaves 0 rows; leave out fewer"):
        load(home, tmp_path / "a", without=100)
    with pytest.raises(RecipeError, match="without: 30 leaves 70 rows"):
        load(home, tmp_path / "b", without=30, take=80)


def test_a_key_without_the_option_stays_as_it_was() -> None:
    assert "without" not in LoadRows().model_dump(mode="json")
    assert LoadRows(without=3).model_dump(mode="json")["without"] == 3
