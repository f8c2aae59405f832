"""Locks and published versions keep what they name from `gc`; one that can't be read stops it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from collecting import gc

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import remove_tree
from cpu_pipeline.release import lockfile, references
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store


def key(number: int) -> str:
    return digest_json(["key", number])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store of five steps."""
    made = Store(tmp_path / "store")
    with leased(made) as lease:
        for number in range(5):
            work = lease.work(key(number))
            (work / "model").write_text(f"model {number}")
            lease.commit(key(number), {"stage": "s"}, "onnx", {}, {}, work)
    return made


def digest(store: Store, number: int) -> str:
    found = store.find(key(number))
    assert found is not None
    return found.digest


def write_lock(path: Path, store: Store, *numbers: int) -> Path:
    steps: dict[str, dict[str, Any]] = {
        f"s{n}": {"use": "s", "version": 1, "key": key(n), "output": digest(store, n)} for n in numbers
    }
    steps["timed"] = {"use": "validate.latency", "version": 1}
    parts: dict[str, Any] = {name: {} for name in ("recipe", "made_with", "packages", "environments")}
    path.parent.mkdir(exist_ok=True)
    lockfile.write_lock({"lock": 1, **parts, "steps": steps, "sources": {}, "rows": {}, "gates": {}}, path)
    return path


def write_version(home: Path, store: Store, version: str, *numbers: int) -> Path:
    steps = {f"s{n}": {"key": key(n), "digest": digest(store, n)} for n in numbers}
    manifest = {"manifest": 1, "steps": steps, "outputs": {"out": {"digest": digest(store, numbers[-1])}}}
    (home / version).mkdir(parents=True)
    (home / version / "manifest.json").write_text(json.dumps(manifest))
    return home / version


def left(store: Store) -> list[int]:
    """Collect whatever may go; name the steps that are still whole."""
    gc(store, 0)
    return [number for number in range(5) if store.find(key(number)) is not None]


def test_without_roots_everything_may_go(store: Store) -> None:
    assert left(store) == [] and references.read_roots(store) == references.Roots()


def test_what_a_lock_names_stays(store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "toy.lock", store, 1, 3)
    store.root_at(path)
    assert left(store) == [1, 3]
    write_lock(path, store, 3)
    assert left(store) == [3]


def test_what_any_version_names_stays(store: Store, tmp_path: Path) -> None:
    home = tmp_path / "artifacts" / "toy"
    write_version(home, store, "aaaa", 0, 1)
    write_version(home, store, "bbbb", 1, 4)
    (home / "latest").symlink_to("bbbb")
    (home / "promotions.jsonl").write_text("{}\n")
    (home / ".cccc.1.ab").mkdir()
    store.root_at(home)
    assert left(store) == [0, 1, 4]
    shutil.rmtree(home / "aaaa")
    assert left(store) == [1, 4]


def test_an_object_stays_though_its_record_is_lost(store: Store, tmp_path: Path) -> None:
    store.root_at(write_lock(tmp_path / "toy.lock", store, 1))
    place = store.path_of(digest(store, 1))
    remove_tree(store.record_of(key(1)))
    gc(store, 0)
    assert place.is_dir()


def test_what_is_gone_is_dropped(store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "toy.lock", store, 1)
    store.root_at(path)
    path.unlink()
    planned = [removal.kind for removal in gc(store, 30, dry_run=True)]
    assert planned == ["root"] and len(references.read_roots(store).gone) == 1
    assert left(store) == [] and list((store.root / "roots").iterdir()) == []


def test_a_root_is_written_once(store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "toy.lock", store, 1)
    store.root_at(path)
    [note] = (store.root / "roots").iterdir()
    before = note.stat().st_ino
    store.root_at(path)
    store.root_at(tmp_path / "." / "toy.lock")
    assert [p.stat().st_ino for p in (store.root / "roots").iterdir()] == [before]
    assert note.read_text() == str(path) and references.read_roots(store).paths == [path]


@pytest.mark.parametrize(
    "text",
    ["", "lock: 1\n", "lock: 99\n", "<<<<<<< ours\nlock: 1\n", "[", "\0", "lock: 1\nsteps: [1]\n", "\N{SNOWMAN}"],
)
def test_a_lock_that_cannot_be_read_stops_it(text: str, store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "toy.lock", store, 1)
    store.root_at(path)
    path.write_text(text)
    refuses(store, path)


@pytest.mark.parametrize("how", ["cut", "empty", "list", "no steps", "no key", "odd key", "gone", "folder"])
def test_a_manifest_that_cannot_be_read_stops_it(how: str, store: Store, tmp_path: Path) -> None:
    home = tmp_path / "toy"
    write_version(home, store, "aaaa", 0)
    manifest = write_version(home, store, "bbbb", 1, 4) / "manifest.json"
    store.root_at(home)
    whole = json.loads(manifest.read_text())
    if how in ("gone", "folder"):
        manifest.unlink()
    if how == "folder":
        manifest.mkdir()
    if how == "no key":
        del whole["steps"]["s1"]["key"]
    texts = {
        "cut": manifest.read_text()[:-9] if manifest.is_file() else "", "empty": "", "list": "[]",
        "no steps": json.dumps({**whole, "steps": None}), "no key": json.dumps(whole),
        "odd key": json.dumps({**whole, "steps": {"s1": {"key": "../x", "digest": digest(store, 1)}}}),
    }  # fmt: skip
    if how in texts:
        manifest.write_text(texts[how])
    refuses(store, home)


def refuses(store: Store, place: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(RecipeError, match="nothing was collected") as error:
            gc(store, 0, dry_run)
        assert str(place) in str(error.value) and "roots" in str(error.value)
    assert len(store.keys()) == 5 and len(list(store.root.glob("objects/*/*"))) == 5
    for note in (store.root / "roots").iterdir():
        note.unlink()
    assert left(store) == []


def test_a_path_need_not_be_utf_8(store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "caf\udce9" / "toy.lock", store, 1)
    store.root_at(path)
    assert references.read_roots(store).paths == [path] and left(store) == [1]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_place_that_does_not_answer_stops_it(
    code: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is not mounted just now is not gone."""
    path = write_lock(tmp_path / "toy.lock", store, 1)
    store.root_at(path)
    real = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self == path:
            raise OSError(code, os.strerror(code), str(path))
        return real(self, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        with pytest.raises(RecipeError, match="nothing was collected"):
            gc(store, 0)
    assert len(store.keys()) == 5 and left(store) == [1]


@pytest.mark.parametrize("data", [b"", b"/somewhere/else", b"\xff", b"relative"])
def test_a_note_that_is_damaged_stops_it(data: bytes, store: Store, tmp_path: Path) -> None:
    store.root_at(write_lock(tmp_path / "toy.lock", store, 1))
    [note] = (store.root / "roots").iterdir()
    note.write_bytes(data)
    with pytest.raises(RecipeError, match="is damaged"):
        gc(store, 0)
    assert len(store.keys()) == 5


def test_a_lock_that_changes_during_a_collection_counts_as_it_is_now(store: Store, tmp_path: Path) -> None:
    path = write_lock(tmp_path / "toy.lock", store, 1)
    store.root_at(path)
    read = references.reader(store)
    assert read().keys == {key(1)}
    write_lock(path, store, 2, 3)
    assert read().keys == {key(2), key(3)}
