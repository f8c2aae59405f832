"""Models in folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from pathlib import Path

import pytest

from cpu_pipeline.core.artifact import digest_tree
from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed
from cpu_pipeline.core.repo_files import Want
from cpu_pipeline.sources import folder as module
from cpu_pipeline.sources.folder import Folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    (home / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json", "modeling.py"):
        (home / name).write_text(name)
    return home


def fetch(source: Folder, out: Path, want: Want = "model", allow: Set[str] = frozenset()) -> list[str]:
    out.mkdir()
    source.fetch(want, out, allow)
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_the_copy_has_the_wanted_files_and_the_digest_of_the_identity(home: Path, tmp_path: Path) -> None:
    source = Folder(folder=home)
    said = source.identity("model")
    assert fetch(source, tmp_path / "out") == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert said == {"folder": digest_tree(tmp_path / "out"), "format": "hf"}
    assert fetch(source, tmp_path / "tokenizer", "tokenizer") == ["tokenizer.json"]


def test_identity_follows_content_and_nothing_else(home: Path) -> None:
    source = Folder(folder=home)
    before = source.identity("model")
    (home / "modeling.py").write_text("other")
    (home / "trainer_state.json").write_text("{}")
    (home / "notes.json").write_text("{}")
    assert source.identity("model") == before
    (home / "config.json").write_text("other")
    assert source.identity("model") != before


@pytest.mark.parametrize("when", ["reading", "listing"])
def test_a_folder_that_changes_meanwhile_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def meddle(files: dict[str, Path], out: Path) -> None:
        copy(files, out)
        (home / ("config.json" if when == "reading" else "vocab.txt")).write_text("changed")

    copy = module.copy_files
    monkeypatch.setattr(module, "copy_files", meddle)
    with pytest.raises(StageFailed, match="changed during the build"):
        fetch(Folder(folder=home), tmp_path / "out")


def test_a_copy_that_differs_though_the_folder_rests_again_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flicker(files: dict[str, Path], out: Path) -> None:
        (home / "config.json").write_text("for a moment")
        copy(files, out)
        (home / "config.json").write_text("config.json")

    copy = module.copy_files
    monkeypatch.setattr(module, "copy_files", flicker)
    with pytest.raises(StageFailed, match="changed during the build"):
        fetch(Folder(folder=home), tmp_path / "out")


def test_a_file_that_vanishes_meanwhile_fails(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(files: dict[str, Path], out: Path) -> None:
        (home / "config.json").unlink()
        copy(files, out)

    copy = module.copy_files
    monkeypatch.setattr(module, "copy_files", vanish)
    with pytest.raises(StageFailed, match="changed during the build"):
        fetch(Folder(folder=home), tmp_path / "out")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_that_lead_outside_are_refused(home: Path, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "vocab.txt").write_text("secret")
    (home / "vocab.txt").symlink_to(outside / "vocab.txt" if what == "file" else outside)
    with pytest.raises(Refused, match=r"vocab\.txt is a link that leads outside"):
        Folder(folder=home).identity("model")


def test_a_link_inside_becomes_a_file(home: Path, tmp_path: Path) -> None:
    (home / "vocab.txt").symlink_to("tokenizer.json")
    fetch(Folder(folder=home), tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.txt").is_symlink()
    assert (tmp_path / "out" / "vocab.txt").read_text() == "tokenizer.json"


def test_pickles_need_to_be_allowed(home: Path, tmp_path: Path) -> None:
    (home / "model.safetensors").rename(home / "pytorch_model.bin")
    source = Folder(folder=home)
    with pytest.raises(Refused, match=r"allow: \[pickle\]"):
        fetch(source, tmp_path / "no")
    assert "pytorch_model.bin" in fetch(source, tmp_path / "yes", allow={"pickle"})
    assert fetch(source, tmp_path / "tokenizer", "tokenizer") == ["tokenizer.json"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nowhere: no such folder"):
        Folder(folder=tmp_path / "nowhere").identity("model")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def snapshot(tmp_path: Path, below: str = "") -> Path:
    """Lay out one repository as the Hub's cache does: files of a snapshot are links to its blobs."""
    repository = tmp_path / "models--someone--model"
    folder = repository / "snapshots" / COMMIT / below
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, name in enumerate(("config.json", "model.safetensors", "tokenizer.json")):
        (repository / "blobs" / f"{number:040x}").write_text(name)
        (folder / name).symlink_to(os.path.relpath(repository / "blobs" / f"{number:040x}", folder))
    return folder


@pytest.mark.parametrize("below", ["", "inner"])
def test_links_of_the_hubs_cache_lead_into_their_own_repository(tmp_path: Path, below: str) -> None:
    folder = snapshot(tmp_path, below)
    assert fetch(Folder(folder=folder), tmp_path / "out") == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not (tmp_path / "out" / "config.json").is_symlink()
    assert (tmp_path / "out" / "config.json").read_text() == "config.json"


@pytest.mark.parametrize("how", ["another repository", "beside the blobs", "blobs that are a link", "no commit"])
def test_links_of_a_cache_that_lead_elsewhere_are_refused(tmp_path: Path, how: str) -> None:
    folder = snapshot(tmp_path)
    repository = folder.parent.parent
    other = tmp_path / "models--other--model" / "blobs"
    other.mkdir(parents=True)
    (other / "secret").write_text("secret")
    if how == "another repository":
        (folder / "vocab.txt").symlink_to(other / "secret")
    elif how == "beside the blobs":
        (repository / "refs").write_text("secret")
        (folder / "vocab.txt").symlink_to(repository / "refs")
    elif how == "blobs that are a link":
        shutil.rmtree(repository / "blobs")
        (repository / "blobs").symlink_to(other)
        (folder / "vocab.txt").symlink_to(repository / "blobs" / "secret")
    else:
        folder = folder.rename(folder.parent / "main")
    with pytest.raises(Refused, match="is a link that leads outside"):
        Folder(folder=folder).identity("model")
