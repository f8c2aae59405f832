"""Files that rows name: carried by content, wherever and under whatever name they lay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from cpu_pipeline.core.artifact import Artifact, digest_file, digest_tree
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks.image_classification import ImageClassification

TASK = ImageClassification()


def load(home: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    out.mkdir()
    job = Job(load=None, timer=None, task=TASK)  # type: ignore[arg-type]
    LoadRows(**{"role": "validation", **options}).run({"files": Artifact("files", home, "", {})}, out, job)
    return read_jsonl(out / "rows.jsonl")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "images").mkdir(parents=True)
    for name, content in {"a.PNG": b"one", "b.png": b"two", "unused.png": b"three"}.items():
        (home / "images" / name).write_bytes(content)
    rows = [{"image": "images/a.PNG", "label": 0}, {"image": "images/b.png", "label": 1}]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def test_rows_take_their_files_with_them(home: Path, tmp_path: Path) -> None:
    rows = load(home, tmp_path / "out")
    names = [f"files/{digest_file(home / 'images' / name)}.png" for name in ("a.PNG", "b.png")]
    assert [row["image"] for row in rows] == names
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").glob("files/*")) == sorted(
        names
    )
    assert [Path(row["image"]).read_bytes() for row in TASK.read_rows(tmp_path / "out" / "rows.jsonl")] == [
        b"one",
        b"two",
    ]


def test_content_counts_and_names_do_not(home: Path, tmp_path: Path) -> None:
    load(home, tmp_path / "first")
    (home / "images" / "unused.png").write_bytes(b"changed, and no row names it")
    (home / "images" / "b.png").rename(home / "c.png")
    (home / "rows.jsonl").write_text((home / "rows.jsonl").read_text().replace("images/b.png", "c.png"))
    load(home, tmp_path / "renamed")
    (tmp_path / "first" / "origin.json").unlink()
    (tmp_path / "renamed" / "origin.json").unlink()
    assert digest_tree(tmp_path / "renamed") == digest_tree(tmp_path / "first")
    (home / "c.png").write_bytes(b"other")
    load(home, tmp_path / "other")
    assert digest_tree(tmp_path / "other") != digest_tree(tmp_path / "first")


def test_a_sample_takes_its_own_files_alone(home: Path, tmp_path: Path) -> None:
    [row] = load(home, tmp_path / "out", take=1)
    assert [f"files/{path.name}" for path in (tmp_path / "out" / "files").iterdir()] == [row["image"]]


def test_files_inside_parquet_are_written_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    rows = [
        {"image": {"bytes": content, "path": name}, "label": 0} for name, content in (("a.jpg", b"x"), (None, b"y"))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), home / "train.parquet")
    found = load(home, tmp_path / "out")
    assert [(tmp_path / "out" / row["image"]).read_bytes() for row in found] == [b"x", b"y"]
    assert [Path(row["image"]).suffix for row in found] == [".jpg", ""]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("../secret.png", "`image` is '../secret.png', which is not a path below the rows' directory"),
        ("/etc/passwd", "is '/etc/passwd', which is not a path below"),
        ("images/none.png", "names 'images/none.png', which does not lie beside the rows"),
        ("images/out.png", "names 'images/out.png', which does not lie beside the rows"),
        (3, "`image` is int, not the name of a file"),
        (None, "`image` is missing"),
    ],
)
def test_what_a_row_must_not_name(home: Path, tmp_path: Path, value: Any, says: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (home / "images" / "out.png").symlink_to(tmp_path / "secret.png")
    (home / "rows.jsonl").write_text(json.dumps({"image": value}) + "\n")
    with pytest.raises(RecipeError) as caught:
        load(home, tmp_path / "out")
    assert "data.validation: rows.jsonl:1: " in str(caught.value) and says in str(caught.value)
