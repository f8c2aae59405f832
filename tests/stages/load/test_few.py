"""`load.few`: at most so many of the rows that the recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.few import LoadFew
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks.text_classification import TextClassification


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(100)))
    return tmp_path / "data"


def ids(home: Path, out: Path, stage: LoadRows) -> list[Any]:
    out.mkdir()
    job = Job(load=None, timer=None, task=TextClassification())  # type: ignore[arg-type]
    stage.run({"files": Artifact("files", home, "", {})}, out, job)
    return [row["id"] for row in read_jsonl(out / "rows.jsonl")]


@pytest.mark.parametrize(("options", "count"), [({}, 8), ({"take": 30}, 8), ({"take": 5}, 5)])
def test_at_most_so_many_rows_are_read(home: Path, tmp_path: Path, options: dict[str, Any], count: int) -> None:
    few = ids(home, tmp_path / "few", LoadFew(role="validation", most=8, **options))
    assert len(few) == count == len(set(few))
    assert few == ids(home, tmp_path / "again", LoadFew(role="validation", most=8, **options))
    assert set(few) <= set(ids(home, tmp_path / "all", LoadRows(role="validation")))


def test_few_rows_are_all_of_them(home: Path, tmp_path: Path) -> None:
    assert ids(home, tmp_path / "few", LoadFew(role="validation", most=1000)) == ids(
        home, tmp_path / "all", LoadRows(role="validation")
    )
