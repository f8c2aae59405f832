"""A measurement runs by itself, and is not kept waiting by builds that always run something."""

from __future__ import annotations

from pathlib import Path

import pytest

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
