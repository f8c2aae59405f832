"""The footprint gate finds growth where there is some, and none where memory stays; each bound can fail."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.worker import main
from cpu_pipeline.engine.worker.protocol import Run, TaskSpec, Time
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.validate.footprint import MIB, FootprintFacts, ValidateFootprint, growth, requests
from cpu_pipeline.tasks._base import Feature

TASK = "text-classification"


class FakeTimer:
    """Holds as much more after each call as it is told."""

    load_seconds = 2.0

    def __init__(self, leak: int) -> None:
        self.leak, self.held, self.shapes = leak, 100 * MIB, list[tuple[int, ...]]()

    def time(self, batches: Sequence[Any], rounds: int = 1) -> list[float]:
        return self.trace(batches)[0]

    def trace(self, batches: Sequence[Any]) -> tuple[list[float], list[int]]:
        self.shapes += [batch["input_ids"].shape for batch in batches]
        memory = [self.held + self.leak * number for number in range(1, len(batches) + 1)]
        self.held = memory[-1]
        return [0.25] * len(batches), memory

    @property
    def peak_memory(self) -> int:
        return self.held


def measured(
    timer: FakeTimer, model: Artifact, out: Path, job: Callable[..., Job], data: Any = None, **options: Any
) -> FootprintFacts:
    @contextmanager
    def opened(_: Artifact) -> Iterator[FakeTimer]:
        yield timer

    return ValidateFootprint(**options).run({"candidate": model}, out, job(TASK, timer=opened, data=data or {}))


def judged(facts: FootprintFacts, **bounds: float) -> dict[str, bool]:
    return {v.check: v.passed for v in ValidateFootprint(**bounds).judge(facts)}


def test_a_leak_is_measured(checkpoint: Callable[..., Artifact], out: Path, job: Callable[..., Job]) -> None:
    facts = measured(FakeTimer(10_000), checkpoint("bert", TASK), out, job)
    assert facts.requests == 500 and facts.growth == pytest.approx(10_000)
    assert facts.growth_low == pytest.approx(10_000) and facts.growth_high == pytest.approx(10_000)
    assert facts.grown == 475 * 10_000 and facts.first == 2.25 and facts.load == 2.0
    assert judged(facts, max_growth=9.5) == {"growth": False}
    assert judged(facts, max_growth=9.6) == {"growth": True}
    assert len(json.loads((out / "memory.json").read_text())) == 500


def test_requests_change_their_shape_after_the_largest(
    checkpoint: Callable[..., Artifact], out: Path, job: Callable[..., Job], tmp_path: Path
) -> None:
    timer = FakeTimer(0)
    data = {"validation": models.write_rows(tmp_path / "rows.jsonl", TASK, 30)}
    facts = measured(timer, checkpoint("bert", TASK), out, job, data, requests=80)
    assert facts.on == "rows" and facts.shapes > 8
    assert timer.shapes[0] == tuple(np.max(timer.shapes, axis=0)), "the largest is no growth"
    assert facts.growth == facts.growth_low == facts.growth_high == facts.grown == 0
    assert judged(facts, max_growth=0) == {"growth": True}


def test_noise_and_one_step_are_no_growth() -> None:
    rng = np.random.default_rng(0)
    noisy = (100 * MIB + rng.normal(0, MIB, 500)).astype(int).tolist()
    slope, low, high, _ = growth(noisy)
    assert low < 0 < high and low <= slope <= high
    leaking = [held + 5_000 * number for number, held in enumerate(noisy)]
    slope, low, high, _ = growth(leaking)
    assert 0 < low < 5_000 < high and slope == pytest.approx(5_000, rel=0.3)


def test_a_real_process_notes_what_it_holds(tmp_path: Path) -> None:
    class Leaking:
        inputs = ("input_ids",)

        def __init__(self) -> None:
            self.kept: list[Any] = []

        def __call__(self, arrays: Any) -> Any:
            fresh = mmap.mmap(-1, MIB)  # malloc might give memory that this process had before
            fresh.write(b"x" * MIB)
            self.kept.append(fresh)
            return {}

    np.savez(tmp_path / "batches.npz", **{f"{i}.input_ids": np.ones((1, 4), np.int64) for i in range(60)})
    said = main._time(Time(tmp_path / "batches.npz", 1, memory=True), Leaking())
    slope, low, _, _ = growth(said.memory)
    assert slope == pytest.approx(MIB, rel=0.2) and low > MIB / 2
    assert main._time(Time(tmp_path / "batches.npz", 1), Leaking()).memory == []


def test_a_fresh_process_of_the_artifact_is_measured(checkpoint: Callable[..., Artifact], out: Path) -> None:
    run = Run(
        "validate.footprint", {}, {}, {}, out, out, out / "log.txt", TaskSpec(TASK, {}), 1, (), (), "default",
        {"default": environments.interpreter("default")},
    )  # fmt: skip
    model = checkpoint("bert", TASK)
    with main.timer(model, run) as timer:
        seconds, memory = timer.trace([{name: np.ones((2, 6), np.int64) for name in timer.inputs}] * 3)
        assert len(seconds) == len(memory) == 3
        assert 20 * MIB < memory[-1] <= timer.peak_memory < host.memory() and timer.load_seconds > 0


def facts_of(**found: Any) -> FootprintFacts:
    memory = {"peak_memory": 300 * MIB, "growth": 1.0, "growth_low": 0.0, "growth_high": 2.0, "grown": 9}
    times = {"requests": 500, "shapes": 20, "load": 1.0, "first": 1.5, "threads": 1, "on": "rows"}
    whole = {**memory, **times, "size": 10 * MIB}
    return FootprintFacts.model_validate({**whole, **found})


@pytest.mark.parametrize(
    ("option", "passes", "fails"),
    [
        ("max_memory", 300, 299),
        ("max_growth", 0.0020, 0.0019),
        ("max_load", 1.0, 0.9),
        ("max_first", 1.5, 1.4),
        ("max_size", 10, 9.9),
    ],
)
def test_each_bound_can_fail(option: str, passes: float, fails: float) -> None:
    assert list(judged(facts_of(), **{option: passes}).values()) == [True]
    assert list(judged(facts_of(), **{option: fails}).values()) == [False]


def test_a_growth_that_is_not_known_fails() -> None:
    assert judged(facts_of(growth=None, growth_low=None, growth_high=None), max_growth=5) == {"growth": False}


def test_without_a_bound_it_says_that_it_only_measures() -> None:
    [verdict] = ValidateFootprint().judge(facts_of())
    assert verdict.passed and verdict.says.startswith("only measured: no bound is set")


@pytest.mark.parametrize(
    "options",
    [{"max_memory": float("inf")}, {"max_memory": 0}, {"max_size": 1e9}, {"max_load": 1e9}, {"max_first": -1},
     {"max_growth": -1}, {"requests": 10}],
)  # fmt: skip
def test_bounds_that_cannot_fail_or_pass_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ValidateFootprint(**options)


def test_more_memory_than_the_machine_has_is_no_bound(out: Path, job: Callable[..., Job]) -> None:
    most = host.memory() / MIB
    if most < 1 << 20:
        found = [str(e) for e in ValidateFootprint(max_memory=most).precheck({}, out, job(TASK))]
        assert len(found) == 1 and "cannot fail" in found[0]
    assert list(ValidateFootprint(max_memory=1, max_growth=1).precheck({}, out, job(TASK))) == []


def test_requests_repeat_what_is_few() -> None:
    warm, asked = requests([Feature(0, {"input_ids": [1, 2]})], 40)
    assert [len(group) for group in warm] == [8, 4, 2, 1] and len(asked) == 40
