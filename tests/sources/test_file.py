"""Rows in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.sources import folder
from cpu_pipeline.sources.file import File
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks.text_classification import TextClassification


def write(path: Path, text: str = "{}\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_copy_has_the_digest_of_the_identity(tmp_path: Path) -> None:
    source = File(file=(write(tmp_path / "a.jsonl"), write(tmp_path / "sub" / "b.csv", "x\n1\n")))
    out = tmp_path / "out"
    out.mkdir()
    source.fetch("data", out, set())
    assert sorted(p.name for p in out.iterdir()) == ["a.jsonl", "b.csv"]
    assert source.identity("data") == {"file": digest_tree(out)}


def test_identity_follows_content(tmp_path: Path) -> None:
    source = File(file=write(tmp_path / "a.jsonl"))
    before = source.identity("data")
    write(tmp_path / "a.jsonl", '{"x": 1}\n')
    assert source.identity("data") != before


def test_a_file_that_changes_meanwhile_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle(files: dict[str, Path], out: Path) -> None:
        copy(files, out)
        write(tmp_path / "a.jsonl", "changed")

    copy = folder.copy_files
    monkeypatch.setattr(folder, "copy_files", meddle)
    (tmp_path / "out").mkdir()
    with pytest.raises(StageFailed, match="changed during the build"):
        File(file=write(tmp_path / "a.jsonl")).fetch("data", tmp_path / "out", set())


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        File(file=tmp_path / "a.jsonl").identity("data")
    with pytest.raises(RecipeError, match=r"rows are read from \.parquet, \.jsonl, \.ndjson, \.csv"):
        File(file=write(tmp_path / "a.xlsx")).identity("data")
    with pytest.raises(RecipeError, match=r"two files are called a\.jsonl"):
        File(file=(write(tmp_path / "a.jsonl"), write(tmp_path / "sub" / "a.jsonl"))).identity("data")
    with pytest.raises(RecipeError, match="the list is empty"):
        File(file=()).identity("data")


def test_media_go_with_the_rows(tmp_path: Path) -> None:
    rows = write(tmp_path / "data" / "rows.jsonl")
    (tmp_path / "data" / "images" / "deep" / "er").mkdir(parents=True)
    for name in ("images/a.png", "images/deep/er/b.png", "images/metadata.csv", "images/.hidden"):
        write(tmp_path / "data" / name, name)
    source = File(file=rows, media=tmp_path / "data" / "images")
    out = tmp_path / "out"
    out.mkdir()
    source.fetch("data", out, set())
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert names == ["images/a.png", "images/deep/er/b.png", "rows.jsonl"]
    before = source.identity("data")
    assert before == {"file": digest_tree(out)} != File(file=rows).identity("data")
    write(tmp_path / "data" / "images" / "deep" / "er" / "b.png", "changed")
    assert source.identity("data") != before


def test_media_lie_below_the_rows_and_inside(tmp_path: Path) -> None:
    rows = write(tmp_path / "data" / "rows.jsonl")
    (tmp_path / "images").mkdir()
    with pytest.raises(RecipeError, match="does not lie below the rows' directory, data; move it there"):
        File(file=rows, media=tmp_path / "images").identity("data")
    with pytest.raises(RecipeError, match="no such folder"):
        File(file=rows, media=tmp_path / "data" / "images").identity("data")
    more = write(tmp_path / "other" / "more.jsonl")
    with pytest.raises(RecipeError, match="the rows lie in 2 directories"):
        File(file=(rows, more), media=tmp_path / "data").identity("data")
    (tmp_path / "data" / "images").mkdir()
    (tmp_path / "data" / "images" / "link.png").symlink_to(write(tmp_path / "secret.png"))
    with pytest.raises(Refused, match=r"link\.png is a link that leads outside"):
        File(file=rows, media=tmp_path / "data" / "images").identity("data")


def test_every_path_of_a_source_is_known_to_be_one() -> None:
    """The planner refuses a path that leads out of the recipe's directory, whatever its field is called."""

    class Archive(File):
        index: Path | None = None
        comment: str = ""

    assert File.path_fields() == ["file", "media"]
    assert Archive.path_fields() == ["file", "media", "index"]
    assert folder.Folder.path_fields() == ["folder"]


def test_files_are_read_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    """The order is part of the identity where it is not that of the names, which is read without being written."""
    first, second = write(tmp_path / "b.jsonl", '{"text": "b"}\n'), write(tmp_path / "a.jsonl", '{"text": "a"}\n')
    usual, other = File(file=(second, first)), File(file=(first, second))
    assert usual.identity("data") == {"file": digest_tree_of(usual, tmp_path / "usual")} != other.identity("data")
    digest_tree_of(other, tmp_path / "other")
    job = Job(load=None, timer=None, task=TextClassification())  # type: ignore[arg-type]
    for name, texts in (("usual", ["a", "b"]), ("other", ["b", "a"])):
        out = tmp_path / f"{name}-rows"
        out.mkdir()
        LoadRows().run({"files": Artifact("files", tmp_path / name, "", {})}, out, job)
        assert [row["text"] for row in read_jsonl(out / "rows.jsonl")] == texts


def digest_tree_of(source: File, out: Path) -> str:
    out.mkdir()
    source.fetch("data", out, set())
    return digest_tree(out)
