"""A measurement runs by itself, and is not kept waiting by builds that always run something."""

from __future__ import annotations

from pathlib import Path

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
