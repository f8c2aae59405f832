"""The latency gate compares medians of turns taken in fresh processes, and trusts only the interval's lower end."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.worker import main
from cpu_pipeline.engine.worker.protocol import Run, TaskSpec
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.validate.latency import LatencyFacts, SpeedupFacts, ValidateLatency, stretched
from cpu_pipeline.tasks._base import Feature

TASK = "text-classification"


class FakeTimer:
    """Takes the seconds that it is told to take, and writes down what it was asked."""

    def __init__(self, side: str, seconds: Iterator[float], said: list[tuple[str, int, int]]) -> None:
        self.side, self.seconds, self.said = side, seconds, said
        self.load_seconds = 2.0 if side == "reference" else 1.0
        self.peak_memory = 400 << 20 if side == "reference" else 100 << 20

    def time(self, batches: Sequence[Any], rounds: int = 1) -> list[float]:
        self.said.append((self.side, len(batches), rounds))
        return [next(self.seconds) for _ in range(rounds * len(batches))]

    def trace(self, batches: Sequence[Any]) -> tuple[list[float], list[int]]:
        return self.time(batches), [self.peak_memory] * len(batches)


@pytest.fixture
def sides(checkpoint: Callable[..., Artifact]) -> dict[str, Artifact]:
    """Give a reference and a candidate; a fake timer looks at their digests alone."""
    model = checkpoint("bert", TASK)
    return {side: Artifact(model.format, model.path, side, {}) for side in ("reference", "candidate")}


@pytest.fixture
def run(sides: dict[str, Artifact], out: Path, job: Callable[..., Job], tmp_path: Path) -> Callable[..., LatencyFacts]:
    """Time with seconds that are given for each side."""

    def measure(seconds: dict[str, Iterator[float]], rows: int = 0, said: Any = None, **options: Any) -> LatencyFacts:
        asked: list[tuple[str, int, int]] = [] if said is None else said

        @contextmanager
        def timer(artifact: Artifact) -> Iterator[FakeTimer]:
            yield FakeTimer(artifact.digest, seconds[artifact.digest], asked)

        data = {"validation": models.write_rows(tmp_path / "rows.jsonl", TASK, rows)} if rows else {}
        stage = ValidateLatency(**{"min_speedup": 1.0, **options})
        return stage.run(sides, out, job(TASK, timer=timer, data=data, threads=2))

    return measure


def constant(reference: float, candidate: float) -> dict[str, Iterator[float]]:
    return {"reference": itertools.repeat(reference), "candidate": itertools.repeat(candidate)}


def judged(facts: LatencyFacts, **bounds: float) -> dict[str, bool]:
    return {v.check: v.passed for v in ValidateLatency(**bounds).judge(facts)}


def test_a_steady_speedup_bounds_itself(run: Callable[..., LatencyFacts]) -> None:
    facts = run(constant(0.030, 0.010))
    assert stored_facts(facts.speedup) == {"value": pytest.approx(3), "low": pytest.approx(3), "high": pytest.approx(3)}
    assert facts.candidate.median == facts.candidate.p90 == facts.candidate.p99 == 0.010
    assert facts.candidate.throughput == pytest.approx(100)
    assert (facts.reference.load, facts.candidate.peak_memory) == (2.0, 100 << 20)
    assert judged(facts, min_speedup=2.99) == {"speedup": True}
    assert judged(facts, min_speedup=3.01) == {"speedup": False}
    assert judged(facts, max_median=0.010) == {"median": True}
    assert judged(facts, max_median=0.0099, min_speedup=1) == {"speedup": True, "median": False}


def test_a_model_is_not_faster_than_itself(run: Callable[..., LatencyFacts]) -> None:
    facts = run(constant(0.01, 0.01))
    assert judged(facts, min_speedup=1.0) == {"speedup": True}
    assert judged(facts, min_speedup=1.01) == {"speedup": False}


def test_noise_is_judged_by_the_lower_end(run: Callable[..., LatencyFacts]) -> None:
    """Twice as fast on average, but not surely: blocks differ."""
    slow, fast = ((10, 20, 30, 40), (5, 10, 15, 20))
    seconds = {
        "reference": itertools.cycle([s / 1000 for s in slow for _ in range(4)]),
        "candidate": itertools.cycle([s / 1000 for s in reversed(fast) for _ in range(4)]),
    }
    facts = run(seconds, calls=4, rounds=4, processes=2, warmup=0)
    speedup = facts.speedup
    assert speedup.low < speedup.value < speedup.high
    assert judged(facts, min_speedup=speedup.value) == {"speedup": False}
    assert judged(facts, min_speedup=speedup.low) == {"speedup": True}
    assert judged(facts, max_slowdown=1.0) == {"slowdown": speedup.high >= 1}
    again = run(
        {
            "reference": itertools.cycle([s / 1000 for s in slow for _ in range(4)]),
            "candidate": itertools.cycle([s / 1000 for s in reversed(fast) for _ in range(4)]),
        },
        calls=4, rounds=4, processes=2, warmup=0,
    )  # fmt: skip
    assert again == facts


def test_sides_take_turns_in_fresh_processes(run: Callable[..., LatencyFacts]) -> None:
    said: list[tuple[str, int, int]] = []
    facts = run(constant(1, 1), said=said, calls=3, rounds=4, processes=2, warmup=2)
    warm = [("reference", 3, 2), ("candidate", 3, 2)]
    ours, theirs = ("candidate", 3, 1), ("reference", 3, 1)
    assert said == 2 * [*warm, ours, theirs, theirs, ours, ours, theirs, theirs, ours]
    assert facts.calls == 2 * 4 * 3


def test_warm_up_is_not_counted(run: Callable[..., LatencyFacts]) -> None:
    seconds = {side: itertools.chain([9.0] * 4, itertools.repeat(0.01)) for side in ("reference", "candidate")}
    facts = run(seconds, calls=2, warmup=2, processes=1)
    assert facts.candidate.p99 == 0.01
    assert facts.reference.p99 == 0.01


def test_percentiles_are_of_all_calls(run: Callable[..., LatencyFacts]) -> None:
    seconds = {side: iter([n / 1000 for n in range(1, 101)]) for side in ("reference", "candidate")}
    facts = run(seconds, calls=10, rounds=10, processes=1, warmup=0)
    said = facts.candidate
    assert said.median == pytest.approx(0.0505)
    assert said.p90 == pytest.approx(0.0901)
    assert said.p99 == pytest.approx(0.09901)


@pytest.mark.parametrize(("rows", "length", "shape"), [(0, None, 128), (0, 32, 32), (40, 24, 24)])
def test_batches_have_the_shape_that_was_asked(
    run: Callable[..., LatencyFacts], rows: int, length: int | None, shape: int
) -> None:
    facts = run(constant(1, 1), rows=rows, length=length, batch=2, calls=3, rounds=2)
    assert (facts.tokens, facts.batch) == (shape, 2)
    assert facts.candidate.throughput == pytest.approx(2)


def test_rows_keep_their_own_length(run: Callable[..., LatencyFacts]) -> None:
    said: list[tuple[str, int, int]] = []
    facts = run(constant(1, 1), rows=8, said=said, calls=16, rounds=2)
    assert {count for _, count, _ in said} == {8}
    assert 4 <= facts.tokens <= 40


def test_too_few_rows_for_a_batch_fail(run: Callable[..., LatencyFacts]) -> None:
    with pytest.raises(StageFailed, match=r"3 sequences do not fill a batch of 8; give it more rows"):
        run(constant(1, 1), rows=3, batch=8)


def test_stretches_and_cuts_keeping_the_ends() -> None:
    feature = Feature(0, {"input_ids": [1, 5, 6, 2], "attention_mask": [1, 1, 1, 1]})
    assert stretched(feature, 8, TOKENS).inputs["input_ids"] == [1, 5, 6, 1, 5, 6, 1, 2]
    assert stretched(feature, 3, TOKENS).inputs["input_ids"] == [1, 5, 2]
    assert stretched(feature, 8, TOKENS).inputs["attention_mask"] == [1] * 8


def test_thresholds_are_not_keyed_and_measuring_is() -> None:
    assert ValidateLatency.unkeyed == {"min_speedup", "max_slowdown", "max_median", "waive"}
    stage = ValidateLatency(min_speedup=2)
    assert stage.host() == "machine" and stage.alone
    assert stage.backends({"candidate": "onnx", "reference": "hf"}) == {"onnx", "hf"}


def test_a_number_that_is_none_fails(run: Callable[..., LatencyFacts]) -> None:
    facts = run(constant(1, 1)).model_copy(update={"speedup": SpeedupFacts(value=None, low=None, high=None)})
    for verdict in ValidateLatency(min_speedup=0.1, max_slowdown=10).judge(facts):
        assert not verdict.passed and "NaN" in verdict.says


def test_a_successor_fails_when_it_is_certainly_slower(run: Callable[..., LatencyFacts]) -> None:
    stage = ValidateLatency(min_speedup=2, max_median=9, batch=4).successor()
    assert stage.model_dump(exclude_unset=True) == {
        "min_speedup": None, "max_slowdown": 1.1, "max_median": 9, "batch": 4
    }  # fmt: skip
    assert [v.passed for v in stage.judge(run(constant(0.010, 0.0105)))] == [True, True]
    slower = stage.judge(run(constant(0.010, 0.0112)))
    assert [(v.check, v.passed) for v in slower] == [("slowdown", False), ("median", True)]
    unsure = SpeedupFacts(value=0.9, low=0.5, high=1.0)
    noisy = run(constant(0.010, 0.0112)).model_copy(update={"speedup": unsure})
    assert [v.passed for v in stage.judge(noisy)] == [True, True], "it may as well be as fast"
    changes = stage.changes(run(constant(0.010, 0.0105)))
    assert changes[0] == "median: 10.00 ms → 10.50 ms"


def test_details_have_both_sides(run: Callable[..., LatencyFacts]) -> None:
    table, note = ValidateLatency(min_speedup=1).details(run(constant(0.03, 0.01), batch=2, length=16))
    assert table.headings == [
        "side", "median ms", "p90 ms", "p99 ms", "throughput sequences/s", "cold start s", "peak memory"
    ]  # fmt: skip
    texts = {side: [str(cell.quantity) for cell in cells] for side, cells in table.rows.items()}
    assert texts["reference"] == ["30.00", "30.00", "30.00", "66.7", "2.00", "400.0 MiB"]
    assert texts["candidate"] == ["10.00", "10.00", "10.00", "200.0", "1.00", "100.0 MiB"]
    assert "Batch 2, 16 tokens (median), 2 threads" in note.text


def test_details_say_how_busy_the_machine_was(
    run: Callable[..., LatencyFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other work slows the two sides by different shares, and no interval shows it."""
    monkeypatch.setattr("psutil.getloadavg", lambda: (7.25, 3.0, 1.0))
    facts = run(constant(0.03, 0.01))
    assert facts.load_average == 7.25
    assert "Load average of the machine when it began: 7.25." in ValidateLatency(min_speedup=1).details(facts)[1].text


def test_keeps_every_call(run: Callable[..., LatencyFacts], out: Path) -> None:
    facts = run(constant(0.03, 0.01), calls=3, rounds=2, processes=2)
    kept = json.loads((out / "timings.json").read_text())
    assert kept == {"reference": [[0.03] * 3] * 4, "candidate": [[0.01] * 3] * 4}
    assert facts.calls == 12


def test_measures_throughput_in_batches_of_its_own(run: Callable[..., LatencyFacts], out: Path) -> None:
    said: list[tuple[str, int, int]] = []
    fast = itertools.chain(itertools.repeat(0.01, 16), itertools.repeat(0.04))
    slow = itertools.chain(itertools.repeat(0.02, 16), itertools.repeat(0.16))
    facts = run({"candidate": fast, "reference": slow}, rows=40, said=said,
                calls=8, rounds=2, processes=1, warmup=0, throughput=4)  # fmt: skip
    # Warming up asks for no round, and takes none; then two turns of 8 calls, and two of 2 calls of 4 sequences.
    assert [count for side, count, rounds in said if side == "candidate" and rounds] == [8, 8, 2, 2]
    assert facts.candidate.median == 0.01 and facts.reference.median == 0.02
    assert facts.candidate.throughput == pytest.approx(4 / 0.04)
    assert facts.throughput_batch == 4
    kept = json.loads((out / "timings.json").read_text())
    assert [len(turn) for turn in kept["throughput"]["candidate"]] == [2, 2]
    cells = {cell.heading: str(cell.quantity) for cell in ValidateLatency(min_speedup=1).cells(facts, "candidate")}
    assert cells["median ms, batch 1"] == "10.00" and cells["times as fast"].startswith("2.00 (")
    assert cells["throughput sequences/s, batch 4"] == "100.0"


def test_times_real_models_in_processes_of_their_own(
    exported: Callable[..., Artifact], job: Callable[..., Job], out: Path, tmp_path: Path
) -> None:
    model = exported("bert", "question-answering")
    here = environments.interpreter("default")
    request = Run(
        use="validate.latency", options={}, inputs={}, data={}, out=out, scratch=tmp_path, log=tmp_path / "log",
        task=TaskSpec("question-answering", {}), threads=1, isa=(), allow=(), environment="default",
        interpreters={"default": here},
    )  # fmt: skip
    stage = ValidateLatency(min_speedup=0.01, calls=2, rounds=2, processes=1, warmup=1, length=16)
    facts = stage.run(
        {"candidate": model, "reference": model},
        out,
        job("question-answering", timer=lambda a: main.timer(a, request)),
    )
    for side in ("candidate", "reference"):
        said = getattr(facts, side)
        assert 0 < said.median <= said.p90 <= said.p99 < 10
        assert said.load > said.median
        assert said.peak_memory > 10 << 20
    assert math.isfinite(facts.speedup.low)
    assert facts.calls == 4
    assert all(v.passed for v in stage.judge(facts))
