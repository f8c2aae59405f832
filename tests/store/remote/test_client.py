"""A store and a remote: records last, nothing unverified gets in, and a remote that lies is a miss and a warning."""

from __future__ import annotations

import contextlib
import errno
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collecting import gc
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_pipeline.core.artifact import Artifact, digest_json, digest_listing
from cpu_pipeline.core.errors import BackendMissing, RecipeError, TryAgain
from cpu_pipeline.core.files import remove_tree
from cpu_pipeline.store import contents, sync
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store, intact
from cpu_pipeline.store.record import Action, parse_record, record_text
from cpu_pipeline.store.remote.client import Remote
from cpu_pipeline.store.remote.transport_folder import FolderTransport
from cpu_pipeline.store.remote.transport_fsspec import FsspecTransport, HttpTransport, open_transport
from cpu_pipeline.store.remote.urls import Denied, Unreachable, scrub, shown

FILES = {"model.onnx": b"weights" * 50, "sub/config.json": b'{"a": 1}', "empty": b""}


def asked(number: int) -> dict[str, Any]:
    return {"stage": "stage.one", "number": number}


def key(number: int) -> str:
    return digest_json(asked(number))


def commit(lease: Lease, number: int) -> Artifact:
    work = lease.work(key(number))
    for name, data in FILES.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(data + str(number).encode() * (name != "empty"))
    return lease.commit(key(number), asked(number), "onnx", {"n": number}, {"when": 1.0}, work)


@pytest.fixture
def said() -> list[str]:
    """Give the warnings of a test."""
    return []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    with leased(made) as lease:
        commit(lease, 0)
        commit(lease, 1)
    return made


@pytest.fixture
def far(tmp_path: Path, store: Store, said: list[str]) -> Path:
    """Give a folder that a store was pushed into."""
    sync.push(store, Remote(str(tmp_path / "far"), said.append))
    return tmp_path / "far"


def names(steps: list[sync.StepRef]) -> list[str]:
    return sorted(step.key for step in steps)


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def holds(store: Store, like: Store, *numbers: int) -> None:
    """Check that a store has just these, as the other has them, and nothing wrong or left over."""
    assert store.keys() == sorted(map(key, numbers))
    for number in numbers:
        mine, theirs = store.find(key(number)), like.find(key(number))
        assert mine is not None and theirs is not None
        assert tree(mine.path) == tree(theirs.path)
        assert store.record_of(key(number)).read_bytes() == like.record_of(key(number)).read_bytes()
    assert contents.verify(store) == []
    assert list((store.root / "work").iterdir()) == []


@pytest.mark.parametrize("address", ["{}/far place", "file://{}/far", "memory://{}/far"])
def test_there_and_back(address: str, tmp_path: Path, store: Store, said: list[str]) -> None:
    remote = Remote(address.format(tmp_path), said.append)
    first = sync.push(store, remote)
    assert names(first.moved) == store.keys() and first.present == first.missing == []
    assert first.bytes == sum(e.size for e in contents.entries(store))
    again = sync.push(store, remote)
    assert (again.moved, again.bytes, names(again.present)) == ([], 0, store.keys())
    other = Store(tmp_path / "other")
    pulled = sync.pull(other, remote)
    assert names(pulled.moved) == store.keys() and pulled.bytes == first.bytes
    holds(other, store, 0, 1)
    assert sync.pull(other, remote).moved == []
    assert said == []


def test_a_push_of_what_is_there_writes_nothing(far: Path, store: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in far.rglob("*")}
    sync.push(store, Remote(str(far), print))
    assert {path: path.stat().st_mtime_ns for path in far.rglob("*")} == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, sync, replace = list[tuple[str, str]](), os.fsync, Path.replace

    def synced(handle: int) -> None:
        calls.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().parent.name))
        sync(handle)

    def replaced(self: Path, target: Path) -> Path:
        calls.append(("replace", target.name))
        return replace(self, target)

    folder = FolderTransport(tmp_path)
    folder.send(b"x", "actions/ab/one")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    folder.send(b"x", "actions/ab/two")
    assert calls == [("sync", "incoming"), ("replace", "two"), ("sync", "actions")]


@pytest.mark.parametrize(
    ("code", "error"), [(errno.EIO, Unreachable), (errno.ESTALE, Unreachable), (errno.EACCES, Denied)]
)
def test_a_folder_that_does_not_answer_is_no_empty_one(
    code: int, error: type[Exception], far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share whose server is gone, or a closed folder: 75 or 2, and not "nothing to be pulled"."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(far))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        with pytest.raises(error, match=f"{far} can't be read"):
            FolderTransport(far).read("actions/ab/x", 9, print)
        with pytest.raises(error, match=f"{far} can't be read"):
            FolderTransport(far).sizes("objects/ab/x", ["y"])
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(error, match=f"{far} can't be read"):
        FolderTransport(far).buckets("actions")


def test_a_pull_of_everything_leaves_what_is_here_as_old_as_it_is(far: Path, store: Store) -> None:
    """What nobody uses on this machine is for its `gc`, however often all of a remote is pulled."""
    for number in (0, 1):
        os.utime(store.record_of(key(number)), (1000, 1000))
    assert len(sync.pull(Store(store.root), Remote(str(far), print)).present) == 2
    assert {store.record_of(key(number)).stat().st_mtime for number in (0, 1)} == {1000}


class Breaking(FolderTransport):
    """A folder that can't be reached any more after so many files were sent."""

    def __init__(self, root: Path, after: int) -> None:
        super().__init__(root)
        self.left, self.sent = after, list[str]()

    def send(self, source: Path | bytes, name: str) -> None:
        if self.left == 0:
            raise Unreachable("gone")
        self.left -= 1
        self.sent.append(name)
        super().send(source, name)


@pytest.mark.parametrize("after", range(8))
def test_a_push_that_breaks_off_leaves_nothing_wrong_and_goes_on(
    after: int, tmp_path: Path, store: Store, said: list[str]
) -> None:
    remote = Remote(str(tmp_path / "far"), said.append)
    remote._transport = breaking = Breaking(tmp_path / "far", after)
    with pytest.raises(TryAgain):
        sync.push(store, remote)
    done = sum(name.startswith("actions/") for name in breaking.sent)
    assert done == after // 4  # three files, then the record
    first = Store(tmp_path / "first")
    assert len(sync.pull(first, Remote(str(tmp_path / "far"), said.append)).moved) == done
    remote._transport = rest = Breaking(tmp_path / "far", 99)
    sync.push(store, remote)
    assert len(rest.sent) == 8 - after
    assert len({*breaking.sent, *rest.sent}) == 8
    sync.pull(first, Remote(str(tmp_path / "far"), said.append))
    holds(first, store, 0, 1)
    assert said == [] and list((tmp_path / "far" / "incoming").iterdir()) == []


def test_what_was_left_half_written_long_ago_is_swept(far: Path, store: Store) -> None:
    for name, age in (("old", 2 * 86_400), ("young", 60)):
        path = far / "incoming" / name
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    FolderTransport(far).send(b"x", "actions/ab/x")
    assert [path.name for path in (far / "incoming").iterdir()] == ["young"]


def test_files_that_are_gone_or_cut_are_sent_again(far: Path, store: Store, tmp_path: Path, said: list[str]) -> None:
    whole = tree(far)
    [cut] = far.glob(f"objects/*/{digest(store, 0)}/model.onnx")
    cut.write_bytes(cut.read_bytes()[:-1])
    [gone] = far.glob(f"objects/*/{digest(store, 1)}/sub/config.json")
    gone.unlink()
    done = sync.push(store, Remote(str(far), said.append))
    assert names(done.moved) == store.keys() and done.bytes == len(whole[gone.relative_to(far).as_posix()]) + 351
    assert tree(far) == whole


def digest(store: Store, number: int) -> str:
    found = store.find(key(number))
    assert found is not None
    return found.digest


def test_flipped_bytes_are_found_by_a_pull_and_mended_by_force(
    far: Path, store: Store, tmp_path: Path, said: list[str]
) -> None:
    [flipped] = far.glob(f"objects/*/{digest(store, 0)}/model.onnx")
    flipped.write_bytes(b"W" + flipped.read_bytes()[1:])
    other = Store(tmp_path / "other")
    done = sync.pull(other, Remote(str(far), said.append))
    assert names(done.missing) == [key(0)] and names(done.moved) == [key(1)]
    assert len(said) == 1 and str(far) in said[0] and key(0)[:12] in said[0] and "--force" in said[0]
    assert sync.push(store, Remote(str(far), said.append)).moved == []
    assert names(sync.push(store, Remote(str(far), said.append), force=True).moved) == store.keys()
    sync.pull(other, Remote(str(far), said.append))
    holds(other, store, 0, 1)


def test_another_outcome_stays_unless_forced(far: Path, tmp_path: Path, said: list[str]) -> None:
    other = Store(tmp_path / "other")
    with leased(other) as lease:
        work = lease.work(key(0))
        (work / "model.onnx").write_bytes(b"came out otherwise")
        lease.commit(key(0), asked(0), "onnx", {}, {}, work)
    before = tree(far)
    assert sync.push(other, Remote(str(far), said.append)).moved == []
    assert tree(far) == before and "came out as" in said[0]
    assert len(sync.push(other, Remote(str(far), said.append), force=True).moved) == 1
    third = Store(tmp_path / "third")
    sync.pull(third, Remote(str(far), said.append))
    assert digest(third, 0) == digest(other, 0)


def test_a_damaged_object_is_not_pushed(store: Store, tmp_path: Path) -> None:
    path = store.path_of(digest(store, 0)) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"W" + path.read_bytes()[1:])
    done = sync.push(Store(store.root), Remote(str(tmp_path / "far"), print))
    assert names(done.missing) == [key(0)] and names(done.moved) == [key(1)]
    assert not list((tmp_path / "far").glob(f"actions/*/{key(0)}.json"))


# Any change to a remote is a miss, or changes nothing.


def change(path: Path, how: str, at: int, others: list[Path]) -> None:
    """Change a file of a remote in one of many ways."""
    data = path.read_bytes()
    place = at % max(1, len(data))
    if how in ("folder", "nowhere", "link", "itself", "gone"):
        path.unlink()
    if how == "flip":
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << at % 8]) + data[place + 1 :] if data else b"\0")
    elif how == "cut":
        path.write_bytes(data[:place])
    elif how == "longer":
        path.write_bytes(data + b" " * (at % 5_000 + 1))
    elif how == "junk":
        path.write_bytes(bytes(range(256)) * (at % 9))
    elif how == "other":
        path.write_bytes(others[at % len(others)].read_bytes())
    elif how == "folder":
        path.mkdir()
    elif how == "nowhere":
        path.symlink_to("/no/such/file")
    elif how == "link":
        path.symlink_to(others[at % len(others)])
    elif how == "itself":
        path.symlink_to(path)


HOW = ("flip", "cut", "longer", "junk", "other", "folder", "nowhere", "link", "itself", "gone")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    home = tmp_path_factory.mktemp("origin")
    made = Store(home / "store")
    with leased(made) as lease:
        commit(lease, 0)
        commit(lease, 1)
    sync.push(made, Remote(str(home / "far"), print))
    return made, home / "far"


@settings(max_examples=40)
@given(
    changes=st.lists(st.tuples(st.integers(0, 7), st.sampled_from(HOW), st.integers(0, 5_000)), min_size=1, max_size=3)
)
def test_any_change_of_a_remote_is_a_miss_or_the_same_bytes(
    changes: list[tuple[int, str, int]], origin: tuple[Store, Path]
) -> None:
    made, pushed = origin
    home = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(pushed, home / "far")
        files = sorted(p for p in (home / "far").rglob("*") if p.is_file())
        assert len(files) == 8
        for which, how, at in changes:
            if files[which].is_file():
                change(files[which], how, at, [f for f in files if f.is_file() and f != files[which]] or files)
        said: list[str] = []
        other = Store(home / "other")
        sync.pull(other, Remote(str(home / "far"), said.append))
        assert all(str(home / "far") in line and "\n" not in line for line in said)
        for number in (0, 1):
            found = other.find(key(number))
            if found is None:
                assert other.action(key(number)) is None
            else:
                assert found.digest == digest(made, number) and intact(found.path, found.digest)
        assert contents.verify(other) == [] and list((other.root / "work").iterdir()) == []
    finally:
        remove_tree(home)


def test_a_pipe_does_not_hold_a_pull(far: Path, store: Store, tmp_path: Path, said: list[str]) -> None:
    for path in (
        next(far.glob(f"objects/*/{digest(store, 0)}/model.onnx")),
        far / f"actions/{key(1)[:2]}/{key(1)}.json",
    ):
        path.unlink()
        os.mkfifo(path)
    assert sync.pull(Store(tmp_path / "other"), Remote(str(far), said.append)).moved == []


# Records that were made to lie: whole by their own digest, and still not believed.

SHA = digest_json("x")
GOOD = {"model.onnx": (3, SHA)}
LIES: dict[str, Callable[[Action], Action]] = {
    "above": lambda a: with_files(a, {"../evil": (3, SHA)}),
    "above, from below": lambda a: with_files(a, {"a/../../evil": (3, SHA)}),
    "absolute": lambda a: with_files(a, {"/tmp/evil": (3, SHA)}),
    "backslashes": lambda a: with_files(a, {"..\\evil": (3, SHA)}),
    "a drive": lambda a: with_files(a, {"C:evil": (3, SHA)}),
    "NUL": lambda a: with_files(a, {"evil\0": (3, SHA)}),
    "a dot": lambda a: with_files(a, {"./evil": (3, SHA)}),
    "nothing": lambda a: with_files(a, {"": (3, SHA)}),
    "no text": lambda a: with_files(a, {"\ud800": (3, SHA)}),
    "long": lambda a: with_files(a, {"x" * 256: (3, SHA)}),
    "deep": lambda a: with_files(a, {"x/" * 600 + "x": (3, SHA)}),
    "a file below a file": lambda a: with_files(a, {"a": (3, SHA), "a/b": (3, SHA)}),
    "no files": lambda a: with_files(a, {}),
    "a negative size": lambda a: with_files(a, {"model.onnx": (-1, SHA)}),
    "a size that is no number": lambda a: with_files(a, {"model.onnx": ("3", SHA)}),
    "a true size": lambda a: with_files(a, {"model.onnx": (True, SHA)}),
    "no digest": lambda a: with_files(a, {"model.onnx": (3, "../../etc")}),
    "another's ingredients": lambda a: replace(a, ingredients=asked(7)),
    "ingredients that are none": lambda a: replace(a, ingredients=[]),  # type: ignore[arg-type]
    "facts that are none": lambda a: replace(a, facts=[1]),  # type: ignore[arg-type]
    "a format that is none": lambda a: replace(a, format=3),  # type: ignore[arg-type]
    "a run that is none": lambda a: replace(a, run=""),  # type: ignore[arg-type]
    "a date that is none": lambda a: replace(a, run={"when": "x"}),
    "a date that no calendar has": lambda a: replace(a, run={"when": 1e300}),
    "a true date": lambda a: replace(a, run={"when": True}),
    "no seconds": lambda a: replace(a, run={"seconds": None}),
    "negative seconds": lambda a: replace(a, run={"seconds": -1}),
    "more memory than there is": lambda a: replace(a, run={"peak_memory": 1 << 60}),
    "half a character": lambda a: replace(a, facts={"n": "\ud800"}),
    "half a character in a name": lambda a: replace(a, facts={"\udfff": 1}),
    "deep facts": lambda a: replace(a, facts=functools.reduce(lambda facts, _: {"n": facts}, range(300), {})),
}


def with_files(action: Action, files: dict[str, Any]) -> Action:
    return replace(action, files=files, object=digest_listing(files))


def put_record(far: Path, number: int, action: Action, under: str = "") -> None:
    FolderTransport(far).send(
        record_text(under or key(number), action).encode(), f"actions/{key(number)[:2]}/{key(number)}.json"
    )


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_a_miss_and_a_warning(
    lie: str, far: Path, store: Store, tmp_path: Path, said: list[str]
) -> None:
    action = store.action(key(0))
    assert action is not None
    put_record(far, 0, LIES[lie](action))
    before = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    other = Store(tmp_path / "other")
    assert names(sync.pull(other, Remote(str(far), said.append)).missing) == [key(0)]
    holds(other, store, 1)
    assert len(said) == 1 and "its record is damaged, or was written for something else" in said[0]
    assert {path for path in tmp_path.rglob("*") if "other" not in path.relative_to(tmp_path).parts} == before


@pytest.mark.parametrize("half", ["\\ud800", "\\uD800", "\ud800"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_half_a_character_is_found_however_it_is_written(half: str, encoding: str, store: Store) -> None:
    action = store.action(key(0))
    assert action is not None
    text = record_text(key(0), replace(action, facts={"n": "\ud800"})).replace("\\ud800", half)
    assert parse_record(key(0), text.encode(encoding, "surrogatepass")) is None


def test_whole_characters_are_kept(store: Store) -> None:
    with leased(store) as lease:
        work = lease.work(key(0))
        (work / "\U0001f600.txt").write_bytes(b"x")
        lease.commit(key(0), asked(0), "onnx", {"\ud55c": "\U0001f600"}, {}, work)
    action = store.action(key(0))
    assert action is not None and action.facts == {"\ud55c": "\U0001f600"} and set(action.files) == {"\U0001f600.txt"}


def test_a_record_of_another_key_is_a_miss(far: Path, store: Store, tmp_path: Path, said: list[str]) -> None:
    action = store.action(key(1))
    assert action is not None
    put_record(far, 0, action, under=key(1))
    assert names(sync.pull(Store(tmp_path / "other"), Remote(str(far), said.append)).moved) == [key(1)]
    assert len(said) == 1


def test_no_more_is_read_than_a_record_says(far: Path, store: Store, tmp_path: Path, said: list[str]) -> None:
    """A file of 1 GiB (a hole, on this disk) where a few hundred bytes were promised; a record of 1 GiB."""
    [huge] = far.glob(f"objects/*/{digest(store, 0)}/model.onnx")
    os.truncate(huge, 1 << 30)
    os.truncate(far / f"actions/{key(1)[:2]}/{key(1)}.json", 1 << 30)
    written = 0

    def count(block: bytes) -> None:
        nonlocal written
        written += len(block)

    assert FolderTransport(far).read(huge.relative_to(far).as_posix(), 350, count) == 351 and written <= 351
    assert sync.pull(Store(tmp_path / "other"), Remote(str(far), said.append)).moved == []
    assert "is not the 351 bytes" in said[0] and len(said) == 2


# What a build does with a remote.


def test_a_lease_asks_the_remote_once_for_what_is_not_here(far: Path, store: Store, tmp_path: Path) -> None:
    remote = Counting(str(far))
    other = Store(tmp_path / "other", remote)
    with leased(other) as lease:
        found = lease.find(key(0))
        assert found is not None and found.digest == digest(store, 0) and lease.brought == {key(0)}
        assert lease.find(key(0)) is not None and lease.find(key(7)) is lease.find(key(7)) is None
    assert remote.asked == [key(0), key(7)]
    with leased(other) as lease:
        assert lease.find(key(0)) is not None and lease.brought == set()
    assert remote.asked == [key(0), key(7)]


class Counting(Remote):
    """Remembers what it was asked."""

    def __init__(self, url: str) -> None:
        super().__init__(url, print, lenient=True)
        self.asked: list[str] = []

    def action(self, key: str) -> Action | None:
        self.asked.append(key)
        return super().action(key)


def test_an_object_that_is_here_is_not_fetched_again(far: Path, store: Store, tmp_path: Path) -> None:
    """Another key came to the same content here: its record alone is brought."""
    remove_tree(store.record_of(key(0)))
    for path in far.glob(f"objects/*/{digest_of(store, 0)}"):
        remove_tree(path)
    here = Store(store.root, Remote(str(far), print))
    with leased(here) as lease:
        found = lease.find(key(0))
        assert found is not None and lease.brought == {key(0)}
        gc(Store(store.root), 0)
        assert intact(found.path, found.digest), "F19: this build is about to read it"
    assert contents.verify(store) == []


def digest_of(store: Store, number: int) -> str:
    """Name the object that holds what `commit` writes for a number, by its content."""
    [found] = [
        p for p in store.root.glob("objects/*/*") if (p / "sub/config.json").read_bytes().endswith(b"%d" % number)
    ]
    return found.name


def test_foreseeing_moves_nothing(far: Path, store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", Remote(str(far), print))
    found = other.find_remote(key(0))
    assert found is not None and (found.digest, found.facts) == (digest(store, 0), {"n": 0})
    assert other.find_remote(key(7)) is None and not other.root.exists()


def test_a_lenient_remote_out_of_reach_is_told_once(said: list[str], tmp_path: Path) -> None:
    remote = Remote("http://127.0.0.1:9/store", said.append, lenient=True)
    other = Store(tmp_path / "other", remote)
    with leased(other) as lease:
        assert lease.find(key(0)) is lease.find(key(1)) is None
    assert len(said) == 1 and "127.0.0.1:9/store can't be reached" in said[0] and "going on without it" in said[0]
    with pytest.raises(Unreachable):
        sync.pull(other, Remote("http://127.0.0.1:9/store", said.append))


# Addresses.


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("/srv/store", "/srv/store"),
        ("s3://key:geheim@bucket/store", "s3://bucket/store"),
        ("https://user:geheim@host:8/store?token=geheim#geheim", "https://host:8/store"),
        ("simplecache::https://user:geheim@host/store", "simplecache::https://host/store"),
        ("zip://a::http://user:geheim@host/a.zip?x=geheim", "zip://a::http://host/a.zip"),
        ("https://user:geheim@one/x?geheim::http://user:geheim@two/y", "https://one/x::http://two/y"),
        ("https://user:ge#he?im@host/x", "https://host/x"),
        ("s3://AKIA:ge/he+im@bucket/x", "s3://bucket/x"),
        ("https://user:ge@he/im@host/x", "https://host/x"),
        ("https://user:ge::he::im@host/x", "https://host/x"),
        ("https://user:ge\uff03heim@host/x", "https://host/x"),
        ("https://ge#heim@host/x", "https://host/x"),
        ("https://geheim@host/a@b", "https://host/a@b"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("http://[::1]:8/x", "http://[::1]:8/x"),
        ("memory://@x", "memory://x"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, plain: str) -> None:
    assert shown(address) == plain


def test_messages_are_scrubbed() -> None:
    url = "https://user:ge%40heim@host/store?token=abc%2Fdef"
    said = scrub(f"404 for {url} with ge@heim\nand token=abc/def", url)
    assert "heim" not in said and "def" not in said and "\n" not in said
    assert scrub("the signature abc/def has expired", url) == "the signature *** has expired"
    two = "https://host/store?version=2&signature=abc%2Fdef%3D"
    assert scrub("abc%2Fdef%3D and abc/def= do not match", two) == "*** and *** do not match"


@pytest.mark.parametrize(
    "url",
    [
        "zip://a::http://user:geheim@127.0.0.1:9/q",
        "https://bob:geh#eim@127.0.0.1:9/x",
        "https://bob:geh/eim@127.0.0.1:9/x",
        "https://bob:12/geheim@127.0.0.1:9/x",
        "s3://AKIA:geh/eim@bucket/x",
        "https://user:geh\uff03eim@127.0.0.1:9/x",
        "zip://a::https://user:geh\uff03eim@127.0.0.1:9/x",
        "file://user:geheim@host/x",
    ],
)
def test_an_address_that_hides_its_password_badly(url: str, said: list[str]) -> None:
    """Whatever a library makes of it, our error says it in one line without the password, or any part of it."""
    with pytest.raises((RecipeError, TryAgain)) as error:
        Remote(url, said.append).action(key(0))
    text = str(error.value)
    assert not re.search("geh|eim|AKIA|\n", text), text
    assert said == []


def test_a_password_is_not_taken_for_a_host() -> None:
    with pytest.raises(RecipeError, match=r"https://host/x: its user or password holds .* %2F"):
        open_transport("https://user:pass/word@host/x")
    assert (
        type(open_transport("https://user:pass%2Fword@host/x@y"))
        is type(open_transport("https://host:80/x@y"))
        is HttpTransport
    )


def test_secrets_of_an_address_are_in_no_error(said: list[str]) -> None:
    url = "http://user:geheim@127.0.0.1:9/store?token=geheimer"
    Remote(url, said.append, lenient=True).action(key(0))
    with pytest.raises(Unreachable) as error:
        Remote(url, said.append).action(key(0))
    assert len(said) == 1 and "geheim" not in said[0] + str(error.value)


@pytest.mark.parametrize(
    ("url", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs"), ("http://host/x", "aiohttp")]
)
def test_a_missing_package_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendMissing, match=f"pip install {package}"):
        open_transport(url)


def test_what_libraries_log_is_not_printed() -> None:
    """Python prints the logs of a library that nobody listens to: here gcsfs's traceback of what cannot be reached."""
    code = (
        "import logging; from cpu_pipeline.store.remote.transport_fsspec import open_transport; "
        "{} logging.getLogger('gcsfs').error('geheim')"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code.format(opened)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        for opened in ("", "open_transport('memory://x');")
    ]
    assert ["geheim" in said.stderr for said in told] == [True, False]


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://host/x", "http://[host/x", "http://host:port/x", "~nosuchuser/x", "file://~nosuchuser/x",
        "file://host/x", "local://host/x",
    ],
)  # fmt: skip
def test_a_wrong_address_is_said(url: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        sync.pull(Store(tmp_path / "other"), Remote(url, said.append))


def test_a_folder_that_is_in_the_way_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="file"):
        sync.push(store, Remote(str(tmp_path / "file"), print))
    (tmp_path / "far" / "actions" / key(0)[:2] / f"{key(0)}.json").mkdir(parents=True)
    with pytest.raises(Denied, match="in the way"):
        sync.push(store, Remote(str(tmp_path / "far"), print))


def test_what_is_absent_is_empty(tmp_path: Path, said: list[str]) -> None:
    """A schedule pulls before anything was ever pushed."""
    for url in (str(tmp_path / "none"), f"memory://{tmp_path}/none"):
        done = sync.pull(Store(tmp_path / "other"), Remote(url, said.append))
        assert done.moved == done.present == done.missing == said == []


# A real HTTP server.


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, takes PUT if it is told to, and answers as the test wants."""

    answer = 0
    takes = False
    stalls = breaks = False
    sends: tuple[str, tuple[bytes, ...]] = ("", ())
    """Part of a path, and what is sent for it, head and all, piece by piece."""

    def do_GET(self) -> None:
        part, pieces = type(self).sends
        if type(self).answer:
            self.send_error(type(self).answer)
        elif part and part in self.path:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    self.connection.sendall(piece)
                    time.sleep(0.02 if len(pieces) > 1 else 0)
            self.close_connection = True
        elif "model.onnx" in self.path and (type(self).stalls or type(self).breaks):
            self.send_response(200)
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.write(b"half")
            self.wfile.flush()
            time.sleep(1.5 if type(self).stalls else 0)
            self.close_connection = True
        else:
            super().do_GET()

    def do_PUT(self) -> None:
        data = bytearray()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data += self.rfile.read(int(self.headers["Content-Length"]))
        if not type(self).takes:
            self.send_error(405)
            return
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[Handler]]]:
    class Mine(Handler):
        pass

    (tmp_path / "far").mkdir(exist_ok=True)
    handler = functools.partial(Mine, directory=str(tmp_path / "far"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", Mine
        running.shutdown()
        thread.join()


def test_a_pushed_folder_is_pulled_over_http(
    server: tuple[str, type[Handler]], far: Path, store: Store, tmp_path: Path, said: list[str]
) -> None:
    other = Store(tmp_path / "other")
    assert names(sync.pull(other, Remote(server[0], said.append)).moved) == store.keys()
    holds(other, store, 0, 1)
    with leased(Store(tmp_path / "third", Remote(f"{server[0]}/?token=x", said.append))) as lease:
        assert lease.find(key(0)) is not None and lease.find(key(7)) is None
    assert said == []


def test_a_damaged_folder_over_http_is_a_miss(
    server: tuple[str, type[Handler]], far: Path, store: Store, tmp_path: Path, said: list[str]
) -> None:
    [longer] = far.glob(f"objects/*/{digest(store, 0)}/model.onnx")
    longer.write_bytes(longer.read_bytes() + b"!")
    [gone] = far.glob(f"objects/*/{digest(store, 1)}/empty")
    gone.unlink()
    other = Store(tmp_path / "other")
    assert names(sync.pull(other, Remote(server[0], said.append)).missing) == store.keys()
    assert len(said) == 2 and contents.verify(other) == []


def test_a_server_that_takes_put_can_be_pushed_to(
    server: tuple[str, type[Handler]], store: Store, tmp_path: Path, said: list[str]
) -> None:
    server[1].takes = True
    assert names(sync.push(store, Remote(server[0], said.append)).moved) == store.keys()
    assert sync.push(store, Remote(server[0], said.append)).moved == []
    other = Store(tmp_path / "other")
    sync.pull(other, Remote(str(tmp_path / "far"), said.append))
    holds(other, store, 0, 1)


def test_a_server_that_does_not_is_clear(server: tuple[str, type[Handler]], store: Store) -> None:
    with pytest.raises(Denied, match=r"does not let itself be written: .*405"):
        sync.push(store, Remote(server[0], print))


@pytest.mark.parametrize(("answer", "error"), [(401, Denied), (403, Denied), (500, Unreachable), (503, Unreachable)])
def test_what_a_server_answers(
    answer: int, error: type[Exception], server: tuple[str, type[Handler]], tmp_path: Path
) -> None:
    server[1].answer = answer
    with pytest.raises(error, match=str(answer)):
        sync.pull(Store(tmp_path / "other"), Remote(server[0], print))
    with pytest.raises(error, match=str(answer)):
        Remote(server[0], print).action(key(0))
    server[1].answer = 404
    assert Remote(server[0], print).action(key(0)) is None


@pytest.mark.parametrize("how", ["stalls", "breaks"])
def test_a_server_that_falls_silent(
    how: str, server: tuple[str, type[Handler]], far: Path, tmp_path: Path, said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In the middle of a file: 75 for a pull; a build goes on without what it can't get."""
    monkeypatch.setattr("cpu_pipeline.store.remote.transport_fsspec.SILENCE", 0.4)
    setattr(server[1], how, True)
    with pytest.raises(Unreachable):
        sync.pull(Store(tmp_path / "other"), Remote(server[0], said.append))
    other = Store(tmp_path / "other", Remote(server[0], said.append, lenient=True))
    with leased(other) as lease:
        assert lease.find(key(0)) is lease.find(key(1)) is None
    assert len(said) == 1 and "going on without it" in said[0]
    assert other.keys() == [] and list((other.root / "work").iterdir()) == []


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
REDIRECT = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n"
DRIPS = HEAD % 351, *[b"x"] * 351
FAULTS = {
    "a length that is longer": ((HEAD % 400 + b"x" * 351,), "can't be reached"),
    "a length that is shorter": ((HEAD % 5 + b"x" * 351,), ""),
    "no length, cut": ((b"HTTP/1.1 200 OK\r\n\r\nweig",), "not the 351 bytes"),
    "a chunk that is cut": ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nweig",), "can't be reached"),
    "a length that is no number": ((b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",), "can't be reached"),
    "two lengths": ((b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",), "can't be reached"),
    "packed, and it is not": (
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nweig",),
        "can't",
    ),
    "nothing": ((b"",), "can't be reached"),
    "no HTTP": ((b"SSH-2.0-OpenSSH_9.6\r\n",), "can't be reached"),
    "an empty file": ((HEAD % 0,), "not the 351 bytes"),
    "an endless head": ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,), "can't be reached"),
    "a slow head": ((b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 100), "can't be reached"),
    "a slow file": (DRIPS, "bytes in"),
    "another host": ((REDIRECT % b"http://192.0.2.1/x",), "redirects to http://192.0.2.1"),
    "a file": ((REDIRECT % b"file:///etc/passwd",), "redirects to file://"),
    "itself": ((REDIRECT % b"/actions/model.onnx",), "can't be reached"),
    "500": ((b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",), "500"),
    "503": ((b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",), "503"),
}


@pytest.mark.parametrize(
    ("fault", "part"),
    [(fault, "model.onnx") for fault in FAULTS]
    + [(fault, "actions/") for fault in ("nothing", "no HTTP", "a slow head", "another host", "500")],
)
def test_a_server_that_answers_wrongly(
    fault: str, part: str, server: tuple[str, type[Handler]], far: Path, tmp_path: Path, said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A build goes on without it after a warning for each step at most; a pull ends in 75 or lists what is missing."""
    monkeypatch.setattr("cpu_pipeline.store.remote.transport_fsspec.SILENCE", 0.3)
    monkeypatch.setattr("cpu_pipeline.store.remote.transport_folder.PATIENCE", 0.2)
    sent, says = FAULTS[fault]
    server[1].sends = part, sent
    other = Store(tmp_path / "other", Remote(server[0], said.append, lenient=True))
    with leased(other) as lease:
        assert lease.find(key(0)) is lease.find(key(1)) is None
    assert 1 <= len(said) <= 2 and "Traceback" not in said[0]
    assert said[0].endswith(("going on without it", "puts it there anew)"))
    if part == "model.onnx":
        assert says in said[0]
    if "going on" in said[0]:
        with pytest.raises(TryAgain):
            Remote(server[0], print).action(key(0)) if part == "actions/" else sync.pull(
                Store(tmp_path / "third"), Remote(server[0], print)
            )
    assert other.keys() == [] and list((other.root / "work").iterdir()) == []


def test_a_redirect_within_the_host_is_followed(server: tuple[str, type[Handler]], far: Path, tmp_path: Path) -> None:
    [real] = far.glob(f"actions/*/{key(0)}.json")
    (far / "record").write_bytes(real.read_bytes())
    server[1].sends = key(0), (REDIRECT % f"{server[0]}/record".encode(),)
    assert Remote(server[0], print).action(key(0)) is not None


def test_kinds_of_places(tmp_path: Path) -> None:
    found = [open_transport(url) for url in (str(tmp_path), f"file://{tmp_path}", "memory://x", "https://host/x")]
    assert [type(place) for place in found] == [FolderTransport, FolderTransport, FsspecTransport, HttpTransport]
    for url in (f"file://localhost{tmp_path}", f"FILE://LocalHost{tmp_path}", f"local://{tmp_path}"):
        place = open_transport(url)
        assert isinstance(place, FolderTransport) and place.root == tmp_path


# A remote that is the store itself.


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", ["store", "store/work", "store/objects", "store/new", "link", "link/new", "linked"])
def test_a_store_is_not_its_own_remote(where: str, force: bool, store: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("store")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "objects").symlink_to("../store/objects")
    before = tree(tmp_path)
    for url in (str(tmp_path / where), f"file://{tmp_path / where}"):
        remote = Remote(url, print)
        with pytest.raises(RecipeError, match="apart from it"):
            sync.push(store, remote, force=force)
        with pytest.raises(RecipeError, match="apart from it"):
            sync.pull(store, remote)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("room", ["actions", "objects", "incoming", "other"])
def test_a_store_below_its_remote(room: str, tmp_path: Path) -> None:
    """It may be there, but not among the remote's own files."""
    store = Store(tmp_path / "far" / room / "store")
    with leased(store) as lease:
        commit(lease, 0)
    remote = Remote(str(tmp_path / "far"), print)
    if room != "other":
        with pytest.raises(RecipeError, match="apart from it"):
            sync.push(store, remote)
        return
    assert len(sync.push(store, remote).moved) == 1
    assert contents.verify(store) == [] and sync.pull(store, remote).moved == []


def test_a_record_that_claims_more_than_there_is_room_for_is_a_miss_of_a_build(
    far: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with leased(Store(tmp_path / "other", Remote(str(far), said.append, lenient=True))) as lease:
        assert lease.find(key(0)) is None
    assert len(said) == 1 and "bytes, and 100 are free here" in said[0]


def test_a_disk_that_fills_up_while_a_build_fetches_is_a_miss(
    far: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Remote, "fetch", full)
    with leased(Store(tmp_path / "other", Remote(str(far), said.append, lenient=True))) as lease:
        assert lease.find(key(0)) is None
    assert len(said) == 1 and "no space is left" in said[0]
    with pytest.raises(TryAgain):
        sync.pull(Store(tmp_path / "third"), Remote(str(far), said.append))
