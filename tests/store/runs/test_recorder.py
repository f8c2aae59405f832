"""A run is remembered whole, or as one that died; the index over the runs is never needed, and never wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from filelock import FileLock

from cpu_pipeline.core.errors import GateFailed, Interrupted, RecipeError, Termination, TryAgain
from cpu_pipeline.core.events import Event
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import index, reader, recorder
from cpu_pipeline.store.runs.reader import RunEntry, find_run
from cpu_pipeline.store.runs.recorder import recording, runs

RECORD = """\
import sys, time
from pathlib import Path
from cpu_pipeline.engine.result import Event
from cpu_pipeline.store.runs.recorder import recording
from cpu_pipeline.store.local import Store
for number in range(int(sys.argv[2])):
    with recording(Store(Path(sys.argv[1])), "run", sys.argv[3], Path("x.yaml")) as run:
        run.tell(Event("one", "building", ("never built",)))
        print("told", flush=True)
        time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def record(store: Store, name: str = "toy", command: str = "run", **facts: Any) -> str:
    with recording(store, command, name, Path(f"{name}.yaml")) as run:
        run.note(**facts)
    return run.id


def said(store: Store, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((store.root / "runs" / name / "run.json").read_text())
    return read


def start(store: Store, count: int = 1, name: str = "toy", seconds: float = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECORD, str(store.root), str(count), name, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def bare(store: Store) -> list[RunEntry]:
    """List the runs from their folders alone."""
    return [entry for name in reader.folders(store) if (entry := reader.read_entry(store, name)) is not None]


def test_a_run_says_what_was_asked_and_what_came_of_it(store: Store) -> None:
    with recording(store, "refresh", "toy", Path("recipes/toy.yaml")) as run:
        run.tell(Event("one", "building", ("never built",)))
        run.tell(Event("one", "built", seconds=1.5))
        run.note(version="abc", causes=["model moved"])
        run.note(version="def", name="other", id="other", command="other")
    found = said(store, run.id)
    assert found["run"] == 1 and (found["id"], found["command"], found["name"]) == (run.id, "refresh", "toy")
    assert found["recipe"] == "recipes/toy.yaml" and (found["version"], found["causes"]) == ("def", ["model moved"])
    assert (found["exit_code"], found["error"]) == (0, None)
    assert found["started"] <= found["finished"] and found["started"].endswith("+00:00")
    lines = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert lines[0]["what"] == "began" and lines[0]["id"] == run.id and lines[0]["pid"] == os.getpid()
    assert [line["what"] for line in lines[1:]] == ["building", "built"]
    assert lines[1]["why"] == ["never built"] and lines[2]["seconds"] == 1.5
    assert all(0 <= line["at"] < 60 for line in lines)
    assert sorted(path.name for path in run.folder.iterdir()) == ["events.jsonl", "run.json"]
    [entry] = runs(store)
    assert (entry.id, entry.outcome, entry.exit_code, entry.version) == (run.id, "done", 0, "def")


@pytest.mark.parametrize(
    ("error", "code", "name", "outcome"),
    [
        (GateFailed("step `gate`: no\nand more"), 3, "GateFailed", "failed"),
        (Interrupted("stopped"), 130, "Interrupted", "interrupted"),
        (KeyboardInterrupt(), 130, "Interrupted", "interrupted"),
        (Termination(), 143, "Terminated", "interrupted"),
        (ZeroDivisionError("oh"), 70, "ZeroDivisionError", "failed"),
    ],
)
def test_an_error_passes_through_and_is_remembered(
    store: Store, error: BaseException, code: int, name: str, outcome: str
) -> None:
    with pytest.raises(type(error)), recording(store, "run", "toy", None) as run:
        run.note(exit_code=0, version="abc")
        raise error
    found = said(store, run.id)
    assert (found["exit_code"], found["error"]["name"], found["recipe"]) == (code, name, None)
    [entry] = runs(store)
    assert (entry.exit_code, entry.outcome) == (code, outcome)
    assert entry.says == (str(error).partition("\n")[0] or "interrupted")


def test_a_command_that_ends_without_an_error_may_say_its_exit_code(store: Store) -> None:
    record(store, "toy", "refresh", exit_code=3, error=None, says="toy: abc stays in service:\n  more")
    [entry] = runs(store)
    assert (entry.outcome, entry.exit_code, entry.says) == ("failed", 3, "toy: abc stays in service:")


def test_ids_sort_by_time_and_are_found_by_how_they_begin(store: Store) -> None:
    ids = [record(store, str(number)) for number in range(12)]
    assert ids == sorted(ids)
    assert [entry.id for entry in runs(store)] == ids[::-1]
    assert [entry.id for entry in runs(store, "3")] == [ids[3]]
    assert find_run(store, ids[4]).name == ids[4] == find_run(store, ids[4][:-2]).name
    with pytest.raises(RecipeError, match="12 runs begin so: "):
        find_run(store, ids[0][:8])
    for begin in ("19700101", "", "/", ".."):
        with pytest.raises(RecipeError, match=r"no run begins so|runs begin so"):
            find_run(store, begin)


def test_a_run_that_lives_is_told_from_one_that_was_killed(store: Store) -> None:
    running = start(store, seconds=60)
    assert running.stdout is not None
    assert running.stdout.readline() == "told\n"
    [entry] = runs(store)
    assert (entry.outcome, entry.name, entry.command, entry.finished) == ("running", "toy", "run", None)
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    [entry] = runs(store)
    assert (entry.outcome, entry.name, entry.recipe, entry.exit_code) == ("died", "toy", "x.yaml", None)
    lines = (store.root / "runs" / entry.id / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["began", "building"]
    record(store)
    assert [one.outcome for one in runs(store)] == ["done", "died"] == [one.outcome for one in bare(store)]


def test_a_run_that_ends_while_one_looks_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = record(store)
    path = store.root / "runs" / name / "run.json"
    whole = path.read_text()
    path.unlink()
    monkeypatch.setattr(reader, "_alive", lambda folder: path.write_text(whole) and False)
    assert reader.read_entry(store, name).outcome == "done"  # type: ignore[union-attr]


def test_a_run_of_another_user_is_not_taken_for_dead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose lock is not ours to open has not been shown to be free."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with recording(store, "run", "toy", None), monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", refuse)
        assert [one.outcome for one in runs(store)] == ["running"]


def test_a_folder_in_which_nothing_began_is_no_run(store: Store) -> None:
    folder = store.root / "runs" / "20260101T000000.000000-abcdef"
    folder.mkdir(parents=True)
    (store.root / "runs" / "notes").mkdir()
    assert runs(store) == []
    for text in ("", "{", '{"what": "began", "comm', "[]\n", "\udcff\n"):
        (folder / "events.jsonl").write_text(text, errors="surrogateescape")
        assert runs(store) == []


def test_a_record_that_was_cut_is_told_and_never_a_traceback(store: Store) -> None:
    name = record(store, version="abc")
    path = store.root / "runs" / name / "run.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:length])
        [entry] = runs(store)
        assert entry.outcome == "unreadable" and entry.started.startswith(name[:4]), length
    for text in (b"[]", b"null", b"{}", b'{"run": "1"}', b"\xff" * 9, b"[" * 100_000):
        path.write_bytes(text)
        assert runs(store)[0].outcome == "unreadable", text[:20]
    path.write_bytes(b'{"run": 1, "exit_code": "x", "error": [], "name": 3, "says": {}, "version": 7}')
    [entry] = runs(store)
    assert (entry.outcome, entry.name, entry.version, entry.exit_code) == ("failed", "?", None, None)
    path.write_bytes(b'{"run": 2}')
    assert "written by a newer cpu-pipeline" in runs(store)[0].says


def test_nothing_is_written_by_looking(store: Store) -> None:
    assert runs(store) == [] and not store.root.exists()


def row(store: Store) -> sqlite3.Connection:
    return sqlite3.connect(store.root / "runs.sqlite")


def change(sql: str) -> Callable[[Store], None]:
    def do(store: Store) -> None:
        with contextlib.closing(row(store)) as opened, opened:
            opened.execute(sql)

    return do


def cut(store: Store) -> None:
    path = store.root / "runs.sqlite"
    path.write_bytes(path.read_bytes()[:5000])


def flip(store: Store) -> None:
    path = store.root / "runs.sqlite"
    text = path.read_bytes()
    assert b'"outcome": "done"' in text
    path.write_bytes(text.replace(b'"outcome": "done"', b'"outcome": "dome"'))


DAMAGES: dict[str, Callable[[Store], object]] = {
    "gone": lambda s: (s.root / "runs.sqlite").unlink(),
    "empty": lambda s: (s.root / "runs.sqlite").write_bytes(b""),
    "no database": lambda s: (s.root / "runs.sqlite").write_bytes(b"x" * 9000),
    "cut": cut,
    "flipped": flip,
    "without its table": change("DROP TABLE runs"),
    "of another shape": change("ALTER TABLE runs RENAME COLUMN stamp TO other"),
    "of another format": change("PRAGMA user_version=99"),
    "without a row": change("DELETE FROM runs WHERE rowid = 2"),
    "with a row of another": change("UPDATE runs SET id = '20200101T000000.000000-abcdef' WHERE rowid = 1"),
    "with rows changed": change("""UPDATE runs SET entry = replace(entry, 'done', 'failed')"""),
    "with rows that are none": change("UPDATE runs SET entry = '[]', digest = 3"),
    "a stranger's log": lambda s: (s.root / "runs.sqlite-wal").write_bytes(b"7" * 5000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_its_index_nothing_is_different(store: Store, damage: str) -> None:
    for number in range(3):
        record(store, f"toy{number}", version="abc")
    wanted = bare(store)
    assert runs(store) == wanted and len(wanted) == 3
    DAMAGES[damage](store)
    assert runs(store) == wanted
    record(store, "more")
    assert runs(store) == bare(store)
    assert index._read(store)[0].keys() == set(reader.folders(store)), "it was made anew"
    with contextlib.closing(row(store)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_index_that_is_older_than_the_folders_is_brought_up(store: Store, tmp_path: Path) -> None:
    record(store)
    old = (store.root / "runs.sqlite").read_bytes()
    names = [record(store, exit_code=3) for _ in range(2)]
    (store.root / "runs.sqlite").write_bytes(old)
    (store.root / "runs" / names[0] / "run.json").write_text('{"run": 1, "exit_code": 0, "name": "edited"}')
    assert runs(store) == bare(store) and runs(store)[1].name == "edited"
    gone = store.root / "runs" / names[1]
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    assert runs(store) == bare(store) and len(runs(store)) == 2


def test_a_record_that_was_edited_is_read_again_though_it_is_as_long(store: Store) -> None:
    path = store.root / "runs" / record(store) / "run.json"
    assert runs(store)[0].name == "toy"
    path.write_text(path.read_text().replace('"toy"', '"boy"'))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert runs(store)[0].name == "boy"


def test_an_index_of_another_format_is_not_believed(store: Store) -> None:
    name = record(store)
    entry = dataclasses.replace(runs(store)[0], says="what this word means may have changed")
    rows = [index._row(index._stamp(store, name), entry)]
    index._put(store.root / index.NAME, rows, ())
    assert runs(store) == [entry], "else this test shows nothing"
    change(f"PRAGMA user_version={index.INDEX_FORMAT + 1}")(store)
    assert runs(store) == bare(store)


def test_a_directory_in_the_place_of_the_index(store: Store) -> None:
    (store.root / "runs.sqlite").mkdir(parents=True)
    (store.root / "CACHEDIR.TAG").touch()
    record(store)
    assert runs(store) == bare(store) and len(runs(store)) == 1
    with pytest.raises(RecipeError, match="is a directory; move it away"):
        index.rebuild(store)


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_locked_index_is_gone_round(store: Store, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PATIENCE", 0.05)
    record(store)
    with contextlib.closing(row(store)) as other:
        if how == "EXCLUSIVE":  # shuts out readers, too
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute(f"BEGIN {how}")
        other.execute("CREATE TABLE mine (x)")
        record(store, exit_code=1)
        assert runs(store) == bare(store) and len(runs(store)) == 2
        with pytest.raises(TryAgain, match="is held by another process"):
            index.rebuild(store)
        other.rollback()
    assert runs(store) == bare(store)
    assert len(index._read(store)[0]) == 2


def test_the_index_saves_reading_the_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        record(store)
    wanted = runs(store)
    monkeypatch.setattr(index, "read_entry", lambda *_: pytest.fail("a record was read"))
    assert runs(store) == wanted


def test_an_index_is_made_anew_when_asked(store: Store) -> None:
    assert index.rebuild(store) == 0 and not store.root.exists()
    record(store)
    change("UPDATE runs SET stamp = '', digest = ''")(store)
    assert index.rebuild(store) == 1
    assert len(index._read(store)[0]) == 1


def test_many_write_at_once(store: Store) -> None:
    many = [start(store, 5, f"toy{number}") for number in range(6)]
    for one in many:
        assert one.communicate(timeout=120)[0].count("told") == 5 and one.returncode == 0
    found = runs(store)
    assert len(found) == 30 and {entry.outcome for entry in found} == {"done"} and found == bare(store)
    assert len(runs(store, "toy3")) == 5
    with contextlib.closing(row(store)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opened.execute("SELECT count(*) FROM runs").fetchone() == (30,)


def test_a_place_that_takes_no_record_makes_no_good_run_a_failed_one(store: Store) -> None:
    store.prepare()
    (store.root / "runs").write_text("in the way")
    with recording(store, "run", "toy", None) as run:
        run.tell(Event("one", "built"))
        run.note(version="abc")
    assert run.lost and runs(store) == []
    with pytest.raises(GateFailed, match="as it was"), recording(store, "run", "toy", None):
        raise GateFailed("as it was")


def test_somebody_elses_folder_gets_no_record(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with recording(Store(tmp_path), "run", "toy", None) as run:
        pass
    assert "is not a store" in run.lost
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let no file be written any more, when called."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    yield lambda: monkeypatch.setattr(recorder, "write_file", refuse)


def test_a_full_disk_is_told_when_the_record_is_lost(store: Store, full: Callable[[], None]) -> None:
    with pytest.raises(TryAgain, match="no space is left on"), recording(store, "run", "toy", None) as run:
        full()
    assert [entry.outcome for entry in runs(store)] == ["died"]
    with pytest.raises(GateFailed), recording(store, "run", "toy", None):  # what was wrong before is what is told
        raise GateFailed("no")
    assert not (run.folder / "alive.lock").exists()


def test_events_that_find_no_room_cost_nothing_else(store: Store) -> None:
    with recording(store, "run", "toy", None) as run:
        assert run._events is not None
        run._events.close()
        run._events = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - the run closes it
        run.tell(Event("one", "built"))
        run.tell(Event("two", "built"))
    assert said(store, run.id)["events"] == "incomplete: No space left on device"
    assert not run.lost and runs(store)[0].outcome == "done"


def test_no_secret_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush-token-1234")
    monkeypatch.setenv("HARMLESS", "harmless-value")
    with pytest.raises(RecipeError), recording(store, "run", "toy", Path("toy.yaml")) as run:
        run.tell(Event("one", "warning", ("s3://key:hush@host/x and hush-token-1234",)))
        run.note(remote="https://somebody:hush@example.org/store", deep=[{"a hush-token-1234": ("hush-token-1234",)}])
        run.note(slash="s3://key:hu/sh@bucket/x and https://k:hu#sh@host/x, then s3://bucket/a@b")
        run.note(kept="harmless-value of somebody@example.org at https://example.org/@x")
        raise RecipeError("HTTP 403 for https://hush@example.org/a?b")
    text = "".join(path.read_text() for path in run.folder.iterdir())
    assert "hush" not in text and "hush" not in (store.root / "runs.sqlite").read_bytes().decode(errors="replace")
    assert said(store, run.id)["remote"] == "https://***@example.org/store"
    assert said(store, run.id)["slash"] == "s3://***@bucket/x and https://***@host/x, then s3://bucket/a@b"
    assert said(store, run.id)["kept"] == "harmless-value of somebody@example.org at https://example.org/@x"


def test_a_record_waits_for_the_disk_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs time is waiting for the disk: once for the file, once for its directory, however large it is."""
    record(store)
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle))[1])
    record(store, manifest={"steps": {str(n): {"facts": list(range(50))} for n in range(20)}})
    assert len(synced) == 2
