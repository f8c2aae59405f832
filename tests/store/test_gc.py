"""Upkeep finds whatever is wrong in a store, and removes only what nobody can miss."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from collecting import gc

from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.core.files import remove_tree
from cpu_pipeline.store import contents
from cpu_pipeline.store import gc as module
from cpu_pipeline.store.contents import entries, stat, verify
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import Action

HERE = Path(__file__).parents[2]
DAY = 86_400


def key(number: int) -> str:
    return digest_json(["key", number])


def commit(lease: Lease, number: int, text: str | None = None, format: str = "onnx") -> Artifact:
    work = lease.work(key(number))
    (work / "sub").mkdir()
    (work / "sub" / "model").write_text(text or f"model {number}")
    run = {"when": 1000.0 + number}
    return lease.commit(key(number), {"stage": f"stage.{number}"}, format, {"n": number}, run, work)


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def three(store: Store) -> list[Artifact]:
    with leased(store) as lease:
        return [commit(lease, 0), commit(lease, 1, "twenty-three bytes long", "openvino"), commit(lease, 2)]


def snapshot(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")}


def kinds(found: list[contents.StoreProblem] | list[module.Removal]) -> list[str]:
    return sorted(each.kind for each in found)


def test_an_absent_store_is_empty_and_stays_absent(store: Store) -> None:
    assert entries(store) == verify(store) == verify(store, repair=True) == gc(store, 0) == []
    assert stat(store) == contents.Stat(0, 0, 0, {}, 0)
    assert not store.root.exists()


def test_entries_and_stat(store: Store, three: list[Artifact]) -> None:
    age(store.record_of(key(1)), 3)
    age(store.record_of(key(2)), 1)
    (store.scratch(key(5)) / "half").write_bytes(b"x" * 50)
    remove_tree(store.record_of(key(0)))
    listed = entries(store)
    assert [(e.key, e.stage, e.format, e.size, e.made) for e in listed] == [
        (key(2), "stage.2", "onnx", 7, 1002.0),
        (key(1), "stage.1", "openvino", 23, 1001.0),
    ]
    assert abs(time.time() - 3 * DAY - listed[1].used) < 60
    assert listed[1].object == three[1].digest
    age(store.record_of(key(2)), 5)
    assert [entry.key for entry in entries(store)] == [key(1), key(2)]
    assert stat(store) == contents.Stat(2, 3, 37, {"onnx": (1, 7), "openvino": (1, 23)}, 57)


# verify


def test_a_whole_store_has_no_problems_and_verify_writes_nothing(store: Store, three: list[Artifact]) -> None:
    before = snapshot(store.root)
    assert verify(store) == []
    assert snapshot(store.root) == before


def test_every_flipped_byte_is_found(store: Store) -> None:
    with leased(store) as lease:
        made = commit(lease, 1, "abcdef")
    file = made.path / "sub" / "model"
    whole = file.read_bytes()
    file.chmod(0o644)
    for place in range(len(whole)):
        for bit in range(8):
            text = bytearray(whole)
            text[place] ^= 1 << bit
            file.write_bytes(text)
            assert kinds(verify(store)) == ["damaged"]
    file.write_bytes(whole)
    assert verify(store) == []


def test_every_kind_of_problem_is_named_and_mended(store: Store, three: list[Artifact]) -> None:
    (three[0].path / "sub" / "more").write_bytes(b"")
    remove_tree(three[1].path)
    store.record_of(key(2)).write_bytes(b"{")
    (store.root / "objects" / "stray").write_bytes(b"")
    (three[2].path.parent / "stray").mkdir()
    (store.root / "actions" / "stray.json").write_bytes(b"{}")
    before = snapshot(store.root)
    found = verify(store)
    assert kinds(found) == ["damaged", "missing", "unknown", "unknown", "unknown", "unreadable"]
    assert all(str(problem.path) in problem.says and not problem.mended for problem in found)
    assert snapshot(store.root) == before

    mended = verify(store, repair=True)
    # The record of what was damaged points nowhere once that is set aside.
    assert kinds(mended) == ["damaged", "missing", "missing", "unknown", "unknown", "unknown", "unreadable"]
    assert all(problem.mended for problem in mended)
    assert len(list((store.root / "damaged").iterdir())) == 7
    assert verify(store) == []
    assert three[2].path.exists()
    with leased(store) as lease:
        assert [lease.find(key(number)) for number in range(3)] == [None] * 3
        assert [commit(lease, 0), commit(lease, 1, "twenty-three bytes long", "openvino"), commit(lease, 2)] == three
    assert verify(store) == []


def test_what_a_gc_removes_meanwhile_is_no_problem(
    store: Store, three: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path, digest: str) -> bool:
        monkeypatch.undo()
        gc(store, 0)
        return False

    monkeypatch.setattr(contents, "intact", late)
    assert verify(store) == []
    assert entries(store) == []


def test_a_record_that_a_gc_removes_while_it_is_looked_at_is_no_problem(
    store: Store, three: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(key: str) -> Action | None:
        monkeypatch.undo()
        read = store.action(key)
        gc(store, 0)
        return read

    monkeypatch.setattr(store, "action", late)
    assert verify(store) == []
    assert entries(store) == []


def test_repair_leaves_alone_what_somebody_mended_meanwhile(
    store: Store, three: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    (three[0].path / "more").write_bytes(b"")
    real = store.locked

    def late() -> contextlib.AbstractContextManager[None]:
        monkeypatch.undo()
        with leased(Store(store.root)) as lease:
            assert commit(lease, 0) == three[0]
        return real()

    monkeypatch.setattr(store, "locked", late)
    assert [(problem.kind, problem.mended) for problem in verify(store, repair=True)] == [("damaged", False)]
    assert store.find(key(0)) == three[0]
    assert verify(store) == []


# gc


def test_gc_removes_what_was_not_used_for_long(store: Store, three: list[Artifact]) -> None:
    age(store.record_of(key(0)), 31)
    age(store.record_of(key(1)), 29)
    store.remember("a/b", key(0))
    store.remember("a/c", key(1))
    planned = gc(store, 30, dry_run=True)
    assert {each.path for each in planned if each.kind != "last"} == {store.record_of(key(0)), three[0].path}
    assert all(each.path.exists() for each in planned)
    removed = gc(store, 30)
    assert removed == planned
    assert kinds(removed) == ["last", "object", "record"]
    assert sum(each.bytes for each in removed if each.kind == "object") == len("model 0")
    assert not any(each.path.exists() for each in removed)
    assert store.find(key(0)) is None
    assert [store.find(key(1)), store.find(key(2))] == three[1:]
    assert store.last("a/b") is None
    assert store.last("a/c") == store.action(key(1))
    assert gc(store, 30) == []
    assert list((store.root / "work").iterdir()) == []


def test_gc_keeps_an_object_that_any_record_names(store: Store) -> None:
    with leased(store) as lease:
        one, two = commit(lease, 1, "same"), commit(lease, 2, "same")
    age(store.record_of(key(1)), 99)
    assert kinds(gc(store)) == ["record"]
    assert one.digest == two.digest
    assert store.find(key(2)) == two


def test_using_keeps(store: Store, three: list[Artifact]) -> None:
    for number in range(3):
        age(store.record_of(key(number)), 99)
    with leased(store) as lease:
        lease.find(key(1))
    gc(store)
    assert [store.find(key(number)) for number in range(3)] == [None, three[1], None]


def test_gc_removes_leftovers(store: Store, three: list[Artifact]) -> None:
    remove_tree(store.record_of(key(0)))
    (store.root / "work" / "1-dead" / "sub").mkdir(parents=True)
    (store.root / "work" / "1-dead" / "sub" / "file").write_bytes(b"x" * 100)
    (store.root / "leases" / "1-dead.lock").touch()
    (store.root / "leases" / "1-dead.uses").write_text(f"\nkey {key(1)}\nobject {three[0].digest}")
    (store.root / "damaged" / "x").write_bytes(b"x" * 10)
    for number, days in ((6, 40), (7, 1)):
        (store.scratch(key(number)) / "half").write_bytes(b"x" * 5)
        store.log(key(number)).write_bytes(b"x" * 3)
        age(store.scratch(key(number)) / "half", days)
        age(store.scratch(key(number)), 50)
        age(store.log(key(number)), days)
    with store.lock(key(8)):
        planned = gc(store, dry_run=True)
        removed = gc(store)
        assert Path(store.lock(key(8)).lock_file).exists()
    assert kinds(removed) == kinds(planned) == ["damaged", "log", "object", "scratch", "work"]
    assert sorted(each.bytes for each in removed) == sorted(each.bytes for each in planned) == [3, 5, 7, 10, 100]
    assert [path.name for path in (store.root / "scratch").iterdir()] == [key(7)]
    assert not store.log(key(6)).exists() and store.log(key(7)).exists()
    assert list((store.root / "leases").iterdir()) == []
    gc(store)
    assert list((store.root / "locks").glob("*/*")) == []


def test_gc_never_removes_what_a_living_lease_holds(store: Store, three: list[Artifact]) -> None:
    with leased(store) as lease:
        assert lease.find(key(0)) == three[0]
        lease.hold(key(9))
        (store.scratch(key(9)) / "half").write_bytes(b"x")
        store.log(key(9)).write_bytes(b"x")
        lock = Path(store.lock(key(9)).lock_file)
        lock.touch()
        work = lease.work(key(9))
        removed = gc(store, 0)
        assert kinds(removed) == ["object", "object", "record", "record"]
        assert Store(store.root).check(store.find(key(0)))
        assert work.exists() and store.log(key(9)).exists() and lock.exists()
        assert (store.root / "scratch" / key(9) / "half").exists()
        store.record_of(key(0)).unlink()
        gc(store, 0)
        assert Store(store.root).check(three[0])  # still being read, even if nothing names it
    gc(store, 0)
    assert not three[0].path.exists()
    assert list((store.root / "scratch").iterdir()) == []


def test_an_object_that_is_placed_but_not_recorded_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from cpu_pipeline.store import local as module

    real = module.write_file

    def late(*args: object) -> None:
        gc(Store(store.root), 0)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_file", late)
    with leased(store) as lease:
        made = commit(lease, 1)
        assert lease.find(key(1)) == made


def test_a_record_written_anew_while_gc_looks_is_read_anew(
    store: Store, three: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(of: Store) -> contextlib.AbstractContextManager[Lease]:
        with leased(Store(store.root)) as lease:
            commit(lease, 1, "something else")
        return leased(of)

    monkeypatch.setattr(module, "leased", late)
    assert [each.path for each in gc(store)] == [three[1].path]
    assert {path.name for path in (store.root / "objects").glob("*/*")} == {entry.object for entry in entries(store)}


def test_a_clock_that_jumps_back_removes_nothing(
    store: Store, three: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert gc(store, 0) == []
    assert [store.find(key(number)) for number in range(3)] == three


@pytest.mark.parametrize("days", [-1, float("nan")])
def test_a_wrong_age_is_refused(store: Store, days: float) -> None:
    with pytest.raises(RecipeError, match="is not a number of days"):
        gc(store, days)


def test_a_second_gc_says_who_holds_it(store: Store, three: list[Artifact]) -> None:
    script = f"""
        import sys
        from pathlib import Path
        from cpu_pipeline.store import gc
        from cpu_pipeline.store.local import Store
        with gc._alone(Store(Path({str(store.root)!r}))):
            print("holding", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    child = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        for dry_run in (False, True):
            with pytest.raises(TryAgain, match=rf"another gc is at work \(pid {child.pid} on \S+ since 2") as caught:
                gc(store, 0, dry_run)
        assert caught.value.exit_code == 75
        (store.root / "gc.json").write_text("")
        with pytest.raises(TryAgain, match="only just begun"):
            gc(store, 0)
        assert store.find(key(0)) == three[0]
    finally:
        child.kill()
        child.communicate()
    assert len(gc(store, 0)) == 6  # a dead one is no obstacle
    assert not (store.root / "gc.json").exists()


WORKER = """
import sys, time
from pathlib import Path
from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
root, me, until = Path(sys.argv[1]), sys.argv[2], time.monotonic() + 3
rounds = built = 0
while time.monotonic() < until:
    store = Store(root)
    with leased(store) as lease:
        held = []
        for number in range(4):
            key = digest_json(["shared", number])
            found = lease.find(key)
            if found is None:
                work = lease.work(key)
                (work / "model").write_text(f"{number} " * 100)
                found = lease.commit(key, {"stage": "s"}, "onnx", {}, {}, work)
                built += 1
            held.append(found)
            for each in held:
                assert store.check(each) and (each.path / "model").stat().st_size == 200, (me, rounds, each.path)
        for each in held:
            assert Store(root).check(each)
        rounds += 1
print(rounds, built)
"""


def test_gc_during_builds_removes_nothing_that_is_used(store: Store) -> None:
    command = [sys.executable, "-c", WORKER, str(store.root)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    builders = [subprocess.Popen([*command, str(n)], cwd=HERE, **pipes) for n in range(2)]
    removed = 0
    while any(builder.poll() is None for builder in builders):
        removed += sum(each.kind == "object" for each in gc(store, 0))
        time.sleep(0.005)
    told = [builder.communicate() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], told
    assert removed >= 4 and all(int(out.split()[0]) > 3 for out, _ in told), "gc and the builds never met"
    assert verify(store) == []
