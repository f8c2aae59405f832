"""Is the candidate faster than the reference? Timed in turns, in fresh processes, on the same pinned cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.figures import BYTES, Cell, Note, Quantity, Table, number
from cpu_pipeline.runtime.batching import Kinds, grouped, pad, width
from cpu_pipeline.runtime.intervals import speed_up
from cpu_pipeline.stages._base import Host, Inputs, Job, Timer, Verdict
from cpu_pipeline.stages.validate._gate import SIDES, Gate, Side, spread, task_of
from cpu_pipeline.stages.validate._timings import LatencyFacts, Measurement, SideFacts, SpeedupFacts, write
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

SUCCESSOR = 1.1
"""How many times slower than what is in service its successor may be."""


class ValidateLatency(Gate):
    """Time candidate and reference in turns, in fresh processes on pinned cores, and compare their medians."""

    batch: int = Field(default=1, ge=1)
    """Sequences in each call."""
    length: int | None = Field(default=None, ge=4)
    """Tokens in each sequence, or samples in each recording; each row's own length unless given."""
    calls: int = Field(default=16, ge=1)
    """Different batches, spread over the validation rows; random tokens where the recipe has no such rows."""
    throughput: int | None = Field(default=None, ge=1)
    """Sequences in each call of a second measurement, of throughput; left out, throughput is that of the first one."""
    rounds: int = Field(default=5, ge=2)
    """How often the two sides take turns in a pair of processes; each turn runs every batch once."""
    processes: int = Field(default=2, ge=1)
    """How many fresh processes each side gets, one after another."""
    warmup: int = Field(default=2, ge=0)
    """Turns that are not counted, at the start of each process."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the bootstrap interval of the speed-up."""
    min_speedup: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How many times faster than the reference the candidate must be; judged on the interval's lower end."""
    max_slowdown: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """How many times slower than the reference it may be; judged on the upper end: fails when that is certain."""
    max_median: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest median of a call, in seconds."""

    facts_model: ClassVar = LatencyFacts
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy", "scipy")
    alone: ClassVar = True
    version: ClassVar = 2
    reproducible: ClassVar = "It measures time, which no two measurements take alike."
    judges_answers: ClassVar = False
    bounds: ClassVar = frozenset({"min_speedup", "max_slowdown", "max_median"})
    unkeyed: ClassVar = bounds
    remedies: ClassVar = ("rounds", "processes", "calls", "min_speedup")

    def host(self) -> Host:
        """Say that times depend on the whole machine."""
        return "machine"

    def run(self, inputs: Inputs, out: Path, job: Job) -> LatencyFacts:
        """Time both sides; keep every call's seconds in timings.json.

        Raises:
            StageFailed: a side can't be loaded or run.
        """
        import numpy as np
        import psutil

        busy = psutil.getloadavg()[0]
        task = task_of(job, "latency")
        kinds = task.input_kinds(inputs["reference"].path)
        batches = self._batches(inputs, job, self.batch, self.calls)
        large = self.throughput or self.batch
        loaded = self._batches(inputs, job, large, max(2, self.calls * self.batch // large)) if self.throughput else []
        sides = {side: Measurement() for side in SIDES}
        for turn in range(self.processes):
            job.progress("rounds", turn * self.rounds, self.processes * self.rounds)
            with job.timer(inputs["reference"]) as slow, job.timer(inputs["candidate"]) as fast:
                told = partial(_tell, job, turn * self.rounds, self.processes * self.rounds)
                self._measure({"reference": slow, "candidate": fast}, sides, batches, loaded, told)
        write(out / "timings.json", sides)
        ours, theirs = sides["candidate"], sides["reference"]
        found = speed_up(theirs.turns, ours.turns, self.confidence)
        return LatencyFacts(
            candidate=ours.facts(large),
            reference=theirs.facts(large),
            speedup=SpeedupFacts(value=found.value, low=found.low, high=found.high),
            confidence=self.confidence,
            batch=self.batch,
            throughput_batch=large,
            tokens=float(np.median([width(arrays, kinds) for arrays in batches])),
            unit=task.unit,
            calls=sum(len(turn) for turn in ours.turns),
            threads=job.threads,
            load_average=round(busy, 2),
        )

    def _measure(
        self,
        timers: Mapping[Side, Timer],
        sides: Mapping[Side, Measurement],
        batches: Sequence[Arrays],
        loaded: Sequence[Arrays],
        told: Callable[[int], None],
    ) -> None:
        """Time one pair of processes, and add what was found to `sides`."""
        self._take_turns(timers, batches, {side: found.turns for side, found in sides.items()}, told)
        if loaded:
            self._take_turns(timers, loaded, {side: found.loaded for side, found in sides.items()}, told)
        for side, timer in timers.items():
            sides[side].loads.append(timer.load_seconds)
            sides[side].peak_memory = max(sides[side].peak_memory, timer.peak_memory)

    def _take_turns(
        self,
        timers: Mapping[Side, Timer],
        batches: Sequence[Arrays],
        seconds: Mapping[Side, list[list[float]]],
        told: Callable[[int], None],
    ) -> None:
        """Warm up, then let the sides take turns; add each turn's seconds."""
        for timer in timers.values():
            timer.time(batches, self.warmup)
        for turn in range(self.rounds):
            # Each goes first as often as the other, so that neither always finds the machine warmed up.
            for side in sorted(timers, reverse=turn % 2 == 1):
                seconds[side].append(timers[side].time(batches))
            told(turn + 1)  # between turns: nothing is timed now

    def _batches(self, inputs: Inputs, job: Job, size: int, calls: int) -> list[Arrays]:
        """Encode `calls` batches of `size` rows each: arrays as the task's `InputKind`s say, padded to the longest.

        Raises:
            StageFailed: there are too few sequences for one batch.
        """
        task, model = task_of(job, "latency"), inputs["reference"].path
        kinds = task.input_kinds(model)
        count = calls * size
        if "validation" in job.data:
            rows = task.read_rows(job.data["validation"])
            features = spread(task.encode(spread(rows, count), model), count)
        else:
            features = [f for batch in task.examples(model, [(size, self.length)] * calls) for f in batch]
        if self.length is not None:
            features = [stretched(feature, self.length, kinds) for feature in features]
        whole = [group for group in grouped(features, size, kinds) if len(group) == size]
        if not whole:
            raise StageFailed(f"{len(features)} sequences do not fill a batch of {size}; give it more rows")
        return [pad(group, list(kinds), kinds) for group in whole]

    def trial(self, rows: int) -> Self:
        """Time one pair of processes, a few calls each: a number to look at, and none to rely on."""
        fewer = {"calls": min(self.calls, 4), "rounds": 2, "processes": 1, "warmup": min(self.warmup, 1)}
        return self.model_copy(update={**fewer, "throughput": None})

    def judge(self, facts: LatencyFacts) -> list[Verdict]:
        """Judge the ends of the speed-up's interval, and the median; an interval that is not known fails."""
        verdicts = []
        ours, theirs, speedup = facts.candidate.median, facts.reference.median, facts.speedup
        low, high = speedup.low, speedup.high
        found = (
            f"{number(speedup.value)} times as fast ({facts.confidence:.0%} interval {number(low)} to "
            f"{number(high)}): median {ours * 1000:.2f} ms, reference {theirs * 1000:.2f} ms"
        )
        if self.min_speedup is not None:
            passed = low is not None and low >= self.min_speedup
            says = f"{found}; at least {self.min_speedup:g} asked of the lower end"
            verdicts.append(Verdict("speedup", passed, says, low, self.min_speedup))
        if self.max_slowdown is not None:
            least = 1 / self.max_slowdown
            says = f"{found}; at least {least:.2f} asked of the upper end"
            verdicts.append(Verdict("slowdown", high is not None and high >= least, says, high, least))
        if self.max_median is not None:
            says = f"median {ours * 1000:.2f} ms, at most {self.max_median * 1000:g} ms asked"
            verdicts.append(Verdict("median", ours <= self.max_median, says, ours, self.max_median))
        return verdicts

    def successor(self) -> Self:
        """Fail only what is certainly slower than what is in service; the median's own bound stays."""
        return self.model_copy(update={"min_speedup": None, "max_slowdown": SUCCESSOR})

    def changes(self, facts: LatencyFacts) -> list[str]:
        """Write median and p99 of both sides, and the speed-up with its interval."""
        ours, theirs = facts.candidate, facts.reference
        return [
            f"median: {theirs.median * 1000:.2f} ms → {ours.median * 1000:.2f} ms",
            f"p99: {theirs.p99 * 1000:.2f} ms → {ours.p99 * 1000:.2f} ms",
            f"times as fast: {_speedup(facts)}",
        ]

    def details(self, facts: LatencyFacts) -> Sequence[Table | Note]:
        """Return both sides' latency, throughput, cold start and memory as a table, and how they were measured."""
        rows = {}
        for side, found in (("reference", facts.reference), ("candidate", facts.candidate)):
            p90 = Cell("p90", Quantity(found.p90 * 1000, "ms"))
            rows[side] = [_median(found), p90, _p99(found), _throughput(found), _cold_start(found), _memory(found)]
        about = (
            f"Batch {facts.batch}, {facts.tokens:.0f} {facts.unit} (median), {facts.threads} threads, "
            f"{facts.calls} calls of each side in turns, in fresh processes. Throughput in batches of "
            f"{facts.throughput_batch}. Load average of the machine when it began: {facts.load_average}."
        )
        return [Table("side", rows), Note(about)]

    def headline(self, facts: LatencyFacts) -> str:
        """Write how many times as fast the candidate is."""
        return f"{number(facts.speedup.value)} times as fast"

    def cells(self, facts: LatencyFacts, side: str) -> Sequence[Cell]:
        """Return one side's latency, throughput, memory and cold start."""
        found = facts.reference if side == "reference" else facts.candidate
        faster = Quantity(1.0, digits=0) if side == "reference" else _speedup(facts)
        return [
            _median(found, f"batch {facts.batch}"),
            _p99(found),
            Cell("times as fast", faster),
            _throughput(found, f"batch {facts.throughput_batch}"),
            _memory(found),
            _cold_start(found),
        ]


def _tell(job: Job, before: int, total: int, rounds: int) -> None:
    job.progress("rounds", before + rounds, total)


def _speedup(facts: LatencyFacts) -> Quantity:
    return Quantity(facts.speedup.value, "", facts.speedup.low, facts.speedup.high)


def _median(found: SideFacts, condition: str = "") -> Cell:
    return Cell("median", Quantity(found.median * 1000, "ms"), condition)


def _p99(found: SideFacts) -> Cell:
    return Cell("p99", Quantity(found.p99 * 1000, "ms"))


def _throughput(found: SideFacts, condition: str = "") -> Cell:
    return Cell("throughput", Quantity(found.throughput, "sequences/s", digits=1), condition)


def _cold_start(found: SideFacts) -> Cell:
    return Cell("cold start", Quantity(found.load, "s"))


def _memory(found: SideFacts) -> Cell:
    return Cell("peak memory", Quantity(found.peak_memory, BYTES))


def stretched(feature: Feature, length: int, kinds: Kinds) -> Feature:
    """Cut or repeat a sequence's tokens, or a recording's samples, to exactly `length`, the last kept at the end.

    Raises:
        StageFailed: the model's inputs all have one size.
    """
    if fixed := [name for name in feature.inputs if kinds[name].axis is None]:
        raise StageFailed(f"length: {fixed[0]} has one size for all rows; leave `length` out")
    return Feature(feature.row, {name: _stretch(values, length) for name, values in feature.inputs.items()})


def _stretch(ids: Any, length: int) -> list[Any]:
    body = list(ids[:-1])
    return [*(body * (length // len(body) + 1))[: length - 1], ids[-1]]
