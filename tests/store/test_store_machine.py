"""Whatever happens to a store, in whatever order: what it serves equals a cold build."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from collecting import gc
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.core.files import remove_tree
from cpu_pipeline.store import lease as lease_module
from cpu_pipeline.store.contents import entries, stat, verify
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store, intact

MEMORY = Path("/dev/shm")
"""Where there is one, a file system that does not wait for a disk."""
COUNT = 5
NUMBERS = st.integers(0, COUNT - 1)
PLACES = st.integers(0, 10_000)


def key(number: int) -> str:
    return digest_json(["key", number])


def cold(number: int) -> tuple[dict[str, bytes], dict[str, int]]:
    """Return the files and the facts that `key(number)` comes out as; 3 and 4 have the same files."""
    content = min(number, 3)
    files = {f"folder{part}/file{part}": bytes([content, part]) * (content + part + 1) for part in range(content + 1)}
    return files | {"config.json": b"{}"}, {"n": number}


def content(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


class Crash(BaseException):
    """Stands for the end of the process."""


class StoreMachine(RuleBasedStateMachine):
    """Builds, uses, breaks, mends and collects one store."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.store = Store(self.home / "store")
        self.open = contextlib.ExitStack()
        self.lease: Lease | None = None
        self.held: dict[int, Artifact] = {}
        self.remembered: dict[str, int] = {}

    def teardown(self) -> None:
        self.open.close()
        for problem in verify(self.store, repair=True):
            assert problem.mended
        assert verify(self.store) == []
        for number in range(COUNT):
            self.build(number)
        shutil.rmtree(self.home)

    @initialize()
    def start(self) -> None:
        self.build(0)

    # Use

    @rule(number=NUMBERS)
    def build(self, number: int) -> None:
        with leased(self.store) as lease:
            found = lease.find(key(number))
            if found is None or not self.store.check(found):
                found = self.commit(lease, number)
            assert lease.find(key(number)) == found
        assert content(found.path) == cold(number)[0]
        assert found.facts == cold(number)[1]

    @rule(number=NUMBERS)
    def build_in_a_long_lease(self, number: int) -> None:
        if self.lease is None:
            self.lease = self.open.enter_context(leased(Store(self.store.root)))
        found = self.lease.find(key(number))
        if found is not None and intact(found.path, found.digest):
            self.held[number] = found
        elif found is None:
            self.held[number] = self.commit(self.lease, number)

    @precondition(lambda self: self.lease)
    @rule()
    def end_the_long_lease(self) -> None:
        self.open.close()
        self.lease, self.held = None, {}

    @rule()
    def look_with_new_eyes(self) -> None:
        self.store = Store(self.store.root)

    @rule(number=NUMBERS)
    def find_and_check(self, number: int) -> None:
        store = Store(self.store.root)
        found = store.find(key(number))
        if found is not None and not store.check(found):
            assert store.find(key(number)) is None
            self.forget(found.digest)

    @rule(number=NUMBERS, label=st.sampled_from(["a/b", "a/c", "ü"]))
    def remember(self, number: int, label: str) -> None:
        self.store.remember(label, key(number))
        self.remembered[label] = number

    # Upkeep

    @rule(days=st.sampled_from([0, 30]))
    def collect(self, days: int) -> None:
        planned = gc(self.store, days, dry_run=True)
        removed = gc(self.store, days)
        assert [each.kind for each in planned if each.kind != "work"] == [
            each.kind for each in removed if each.kind != "work"
        ]
        assert all(not each.path.exists() for each in removed if each.kind != "work")
        kept = {entry.object for entry in entries(self.store)} | {artifact.digest for artifact in self.held.values()}
        objects = {path.name for path in (self.store.root / "objects").glob("*/*")}
        assert objects <= kept
        assert gc(self.store, days) == []

    @rule()
    def repair(self) -> None:
        found = verify(self.store)
        mended = verify(self.store, repair=True)
        assert {problem.path for problem in found} <= {problem.path for problem in mended}
        assert verify(self.store) == []

    @rule(number=NUMBERS)
    def unused_for_long(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.store.record_of(key(number)), (time.time() - 40 * 86_400,) * 2)

    @rule(number=NUMBERS)
    def last_used_in_the_future(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.store.record_of(key(number)), (time.time() + 86_400,) * 2)

    # Damage

    @rule(which=PLACES, place=PLACES, how=st.sampled_from(["flip", "cut", "add", "delete", "link"]))
    def damage_an_object(self, which: int, place: int, how: str) -> None:
        files = sorted(path for path in (self.store.root / "objects").rglob("*") if path.is_file())
        if not files:
            return
        file = files[which % len(files)]
        data = bytearray(file.read_bytes())
        if how == "add":
            file.with_name("more").write_bytes(b"more")
        elif how == "delete":
            file.unlink()
        elif how == "link":
            file.unlink()
            file.symlink_to(self.home)
        else:
            file.chmod(0o644)
            spot = place % len(data)
            data[spot] ^= 1 << (place % 8)
            file.write_bytes(data[:spot] if how == "cut" else data)
        self.forget(file.relative_to(self.store.root).parts[2])

    @rule(which=PLACES)
    def delete_an_object(self, which: int) -> None:
        objects = sorted((self.store.root / "objects").glob("*/*"))
        if objects:
            remove_tree(objects[which % len(objects)])
            self.forget(objects[which % len(objects)].name)

    @rule(number=NUMBERS, other=NUMBERS, place=PLACES, how=st.sampled_from(["cut", "flip", "swap", "junk", "delete"]))
    def damage_a_record(self, number: int, other: int, place: int, how: str) -> None:
        record = self.store.record_of(key(number))
        if not record.exists():
            return
        data = bytearray(record.read_bytes())
        if how == "delete":
            record.unlink()
        elif how == "junk":
            record.write_bytes(b"[]")
        elif how == "swap":
            with contextlib.suppress(FileNotFoundError):
                record.write_bytes(self.store.record_of(key(other)).read_bytes())
        elif data:
            spot = place % len(data)
            data[spot] ^= 1 << (place % 7)
            record.write_bytes(data[:spot] if how == "cut" else data)

    @rule(number=NUMBERS, moment=st.sampled_from(["seal", "make_dir", "sync_dir", "write_file"]))
    def crash_in_a_commit(self, number: int, moment: str) -> None:
        def crash(*_: object) -> None:
            raise Crash

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_module, moment, crash)
            patch.setattr(lease_module, "remove_tree", lambda path: 0)  # the dead tidy nothing up
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
            with contextlib.suppress(Crash), leased(Store(self.store.root)) as lease:
                self.commit(lease, number)

    # What must always hold

    @invariant()
    def what_is_served_equals_a_cold_build(self) -> None:
        store = Store(self.store.root)
        for number in range(COUNT):
            found = store.find(key(number))
            if found is not None and intact(found.path, found.digest):
                assert content(found.path) == cold(number)[0]
                assert found.facts == cold(number)[1]

    @invariant()
    def what_is_held_is_there(self) -> None:
        for number, found in self.held.items():
            assert content(found.path) == cold(number)[0]

    @invariant()
    def what_is_remembered_is_never_another(self) -> None:
        for label, number in self.remembered.items():
            action = self.store.last(label)
            assert action is None or action.ingredients == {"stage": "s", "n": number}

    @invariant()
    def nobody_alive_has_no_work_left(self) -> None:
        with leased(self.store):
            pass
        left = [path.name for path in (self.store.root / "work").iterdir()]
        assert left == ([self.lease.name] if self.lease else [])
        numbers = stat(self.store)
        assert numbers.records <= COUNT and numbers.objects <= COUNT

    def commit(self, lease: Lease, number: int) -> Artifact:
        files, facts = cold(number)
        work = lease.work(key(number))
        for name, data in files.items():
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_bytes(data)
        return lease.commit(key(number), {"stage": "s", "n": number}, "onnx", facts, {}, work)

    def forget(self, digest: str) -> None:
        """Stop expecting an object that was broken; nobody trusts an old look at it either."""
        self.held = {number: artifact for number, artifact in self.held.items() if artifact.digest != digest}
        self.store = Store(self.store.root)


def test_what_a_store_serves_equals_a_cold_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # for speed: no power is cut here
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # shrinking takes minutes; add Phase.shrink to understand a failure
            suppress_health_check=list(HealthCheck),
        ),
    )
