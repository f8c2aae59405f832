"""A measurement runs by itself, and is not kept waiting by builds that always run something."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.engine import machine_folder
from cpu_pipeline.engine.machine_lock import MachineLock


def test_a_measurement_is_alone(tmp_path: Path) -> None:
    one, two = MachineLock(tmp_path), MachineLock(tmp_path)
    assert one.enter(alone=False) and two.enter(alone=False)
    assert one.enter(alone=False), "one build may run several steps"
    one.leave()
    one.leave()
    two.leave()
    assert one.enter(alone=True)
    assert not two.enter(alone=False) and not two.enter(alone=True)
    one.leave()
    assert two.enter(alone=True)
    two.leave()


def test_a_measurement_that_waits_comes_before_what_would_start_later(tmp_path: Path) -> None:
    busy, measuring, third = MachineLock(tmp_path), MachineLock(tmp_path), MachineLock(tmp_path)
    assert busy.enter(alone=False)
    assert not measuring.enter(alone=True)
    assert not busy.enter(alone=False) and not third.enter(alone=False) and not measuring.enter(alone=False)
    assert not third.enter(alone=True)
    busy.leave()
    assert measuring.enter(alone=True)
    measuring.leave()
    assert busy.enter(alone=False)
    busy.leave()


def test_a_measurement_that_found_another_end_lets_go_of_the_door(tmp_path: Path) -> None:
    busy, measuring = MachineLock(tmp_path), MachineLock(tmp_path)
    assert busy.enter(alone=False)
    assert not measuring.enter(alone=True)
    measuring.release_unused_door()
    assert not busy.enter(alone=False), "it waited since the last look"
    measuring.release_unused_door()
    assert busy.enter(alone=False) and measuring.enter(alone=False)
    measuring.leave()
    assert not measuring.enter(alone=True)
    measuring.close()
    assert busy.enter(alone=False)


def test_who_waits_can_say_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = MachineLock(tmp_path)
    assert other.enter(alone=True, step="other/speed")
    assert other.holders() == [], "a build does not wait for itself"
    monkeypatch.setattr("cpu_pipeline.engine.machine_lock.os.getpid", lambda: 1)
    [hold] = MachineLock(tmp_path).holders()
    assert (hold.step, hold.alone) == ("other/speed", True)
    assert str(hold).startswith(f"pid {hold.pid} measures other/speed since ")
    other.leave("other/speed")
    assert MachineLock(tmp_path).holders() == []


def test_a_note_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    note = tmp_path / "99999999.abc.hold.json"
    note.write_text('{"pid": 99999999, "step": "x/speed", "alone": true, "since": 0}')
    (tmp_path / "1.cut.hold.json").write_text('{"pid": ')
    assert MachineLock(tmp_path).holders() == [] and not note.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database at all " * 99),
        lambda path: path.write_bytes(path.read_bytes()[:100] if path.is_file() else b"SQLite format 3\0cut"),
        lambda path: (path.unlink(missing_ok=True), path.mkdir()),
    ],
    ids=["other bytes", "cut", "a directory"],
)
@pytest.mark.parametrize("name", ["machine.db", "door.lock"])
def test_a_damaged_lock_heals(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    for opened_before in (False, True):
        one = MachineLock(tmp_path) if opened_before else None
        damage(tmp_path / name)
        one = one or MachineLock(tmp_path)
        assert one.enter(alone=True)
        two = MachineLock(tmp_path)
        assert not two.enter(alone=False), "it keeps others out again"
        one.leave()
        two.release_unused_door()
        assert two.enter(alone=False)
        two.leave()
        two.close()
        one.close()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this user a runtime directory, and a state directory that nobody else uses."""
    home = tmp_path / "runtime"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return home


def test_the_lock_is_in_the_users_own_directory(runtime: Path, tmp_path: Path) -> None:
    found = machine_folder.machine_folder(tmp_path / "last")
    assert found == runtime / "cpu-pipeline" and found.stat().st_mode & 0o777 == 0o700
    assert machine_folder.machine_folder(tmp_path / "last") == found


@pytest.mark.parametrize(
    "block",
    [
        lambda path: path.write_text("a plain file"),
        lambda path: path.symlink_to(path.parent.parent),
        lambda path: (path.mkdir(), path.chmod(0o777)),
    ],
    ids=["a plain file", "a link", "a directory that all can write to"],
)
def test_what_is_not_its_own_is_passed_over(
    runtime: Path, tmp_path: Path, block: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    block(runtime / "cpu-pipeline")
    monkeypatch.setattr(machine_folder, "_RUN", tmp_path / "none")
    found = machine_folder.machine_folder(tmp_path / "last")
    assert found.parent == tmp_path / "state" / "cpu-pipeline"


def test_another_users_directories_are_passed_over(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one is in the store; where that is another's too, it is an error that names it."""
    monkeypatch.setattr(machine_folder, "_uid", lambda: os.getuid() + 1)
    with pytest.raises(RecipeError, match="last can't be a directory of this user alone"):
        machine_folder.machine_folder(tmp_path / "last")


def test_without_a_home_or_a_name_it_is_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_folder, "_candidates", lambda: iter([Path("/nowhere/cpu-pipeline")]))
    assert machine_folder.machine_folder(tmp_path / "last") == tmp_path / "last"
