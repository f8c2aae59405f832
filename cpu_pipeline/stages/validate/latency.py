"""Is the candidate faster than the reference? Timed in turns, in fresh processes, on the same pinned cores."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.markdown import table
from cpu_pipeline.core.text import size
from cpu_pipeline.runtime.batching import Kinds, grouped, pad
from cpu_pipeline.runtime.intervals import speed_up
from cpu_pipeline.stages._base import Facts, Host, Inputs, Job, Stage, Verdict
from cpu_pipeline.stages.validate.agreement import spread
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

SUCCESSOR = 1.1
"""How many times slower than what is in service its successor may be."""


class ValidateLatency(Stage):
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

    takes: ClassVar = dict.fromkeys(("candidate", "reference"), frozenset(backends.names()))
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy", "scipy")
    alone: ClassVar = True
    version: ClassVar = 2
    reproducible: ClassVar = "It measures time, which no two measurements take alike."
    unkeyed: ClassVar = frozenset({"min_speedup", "max_slowdown", "max_median"})

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if all(getattr(self, name) is None for name in self.unkeyed):
            raise ValueError(f"a gate must be able to fail: set one of {', '.join(sorted(self.unkeyed))}")
        return self

    def gives(self) -> str:
        return "report"

    def host(self) -> Host:
        return "machine"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        return frozenset(formats.values())

    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        """Time both sides; keep every call's seconds in timings.json.

        Raises:
            StageFailed: a side can't be loaded or run.
        """
        import json

        import numpy as np
        import psutil

        busy = psutil.getloadavg()[0]

        batches = self._batches(inputs, job, self.batch, self.calls)
        large = self.throughput or self.batch
        loaded = self._batches(inputs, job, large, max(2, self.calls * self.batch // large)) if self.throughput else []
        seconds: dict[str, list[list[float]]] = {"candidate": [], "reference": []}
        under_load: dict[str, list[list[float]]] = {"candidate": [], "reference": []}
        loads: dict[str, list[float]] = {"candidate": [], "reference": []}
        peaks = {"candidate": 0, "reference": 0}
        for _ in range(self.processes):
            with job.timer(inputs["reference"]) as slow, job.timer(inputs["candidate"]) as fast:
                sides = {"reference": slow, "candidate": fast}
                for given, times in ((batches, seconds), (loaded, under_load)):
                    for timer in sides.values() if given else ():
                        timer.time(given, self.warmup)
                    for turn in range(self.rounds) if given else ():
                        # Each goes first as often as the other, so that neither always finds the machine warmed up.
                        for side in sorted(sides, reverse=turn % 2 == 1):
                            times[side].append(sides[side].time(given))
                for side, timer in sides.items():
                    loads[side].append(timer.load_seconds)
                    peaks[side] = max(peaks[side], timer.peak_memory)
        kept = {**seconds, "throughput": under_load} if loaded else seconds
        (out / "timings.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")
        whole = under_load if loaded else seconds
        found = speed_up(seconds["reference"], seconds["candidate"], self.confidence)
        sides_facts = {
            side: {
                "median": float(np.median(times)),
                "p90": float(np.quantile(times, 0.9)),
                "p99": float(np.quantile(times, 0.99)),
                "throughput": large / float(np.mean(whole[side])),
                "load": float(np.median(loads[side])),
                "peak_memory": peaks[side],
            }
            for side, times in seconds.items()
        }
        return {
            **sides_facts,
            "speedup": {"value": found.value, "low": found.low, "high": found.high},
            "confidence": self.confidence,
            "batch": self.batch,
            "throughput_batch": large,
            "tokens": float(np.median([next(iter(arrays.values())).shape[1] for arrays in batches])),
            "calls": sum(len(times) for times in seconds["candidate"]),
            "threads": job.threads,
            "load_average": round(busy, 2),
        }

    def _batches(self, inputs: Inputs, job: Job, size: int, calls: int) -> list[Arrays]:
        if job.task is None:
            raise StageFailed("latency needs the recipe's task")
        model = inputs["reference"].path
        kinds = job.task.input_kinds(model)
        count = calls * size
        if "validation" in job.data:
            rows = job.task.read_rows(job.data["validation"])
            features = spread(job.task.encode(spread(rows, count), model), count)
        else:
            features = [f for batch in job.task.examples(model, [(size, self.length)] * calls) for f in batch]
        if self.length is not None:
            features = [stretched(feature, self.length, kinds) for feature in features]
        whole = [group for group in grouped(features, size, kinds) if len(group) == size]
        if not whole:
            raise StageFailed(f"{len(features)} sequences do not fill a batch of {size}; give it more rows")
        return [pad(group, list(kinds), kinds) for group in whole]

    def judge(self, facts: Facts) -> list[Verdict]:
        """Judge the ends of the speed-up's interval, and the median; an interval that is not known fails."""
        verdicts = []
        ours, theirs, speedup = facts["candidate"]["median"], facts["reference"]["median"], facts["speedup"]
        low, high = speedup["low"], speedup["high"]
        found = (
            f"{_number(speedup['value'])} times as fast ({facts['confidence']:.0%} interval {_number(low)} to "
            f"{_number(high)}): median {ours * 1000:.2f} ms, reference {theirs * 1000:.2f} ms"
        )
        if self.min_speedup is not None:
            says = f"{found}; at least {self.min_speedup:g} asked of the lower end"
            verdicts.append(
                Verdict("speedup", low is not None and low >= self.min_speedup, says, low, self.min_speedup)
            )
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

    def changes(self, facts: Facts) -> list[str]:
        """Say median and p99 of both sides, and the speed-up with its interval."""
        ours, theirs = facts["candidate"], facts["reference"]
        times = [f"{name}: {theirs[name] * 1000:.2f} ms → {ours[name] * 1000:.2f} ms" for name in ("median", "p99")]
        return [*times, f"times as fast: {_interval(facts['speedup'])}"]

    def tells(self, facts: Facts) -> list[str]:
        """Write both sides' latency, throughput, cold start and memory as a table."""
        head = ("side", "median ms", "p90 ms", "p99 ms", "sequences/s", "cold start s", "peak memory")
        rows = []
        for side in ("reference", "candidate"):
            said: Mapping[str, Any] = facts[side]
            times = (f"{said[key] * 1000:.2f}" for key in ("median", "p90", "p99"))
            rows.append((side, *times, f"{said['throughput']:.1f}", f"{said['load']:.2f}", size(said["peak_memory"])))
        about = (
            f"Batch {facts['batch']}, {facts['tokens']:.0f} tokens (median), {facts['threads']} threads, "
            f"{facts['calls']} calls of each side in turns, in fresh processes. Throughput in batches of "
            f"{facts['throughput_batch']}. Load average of the machine when it began: {facts['load_average']}."
        )
        return [*table(head, rows), about]

    def cells(self, facts: Facts, side: str) -> Mapping[str, str]:
        """Give one side's latency, throughput, memory and cold start."""
        said: Mapping[str, Any] = facts[side]
        faster = "1" if side == "reference" else _interval(facts["speedup"])
        return {
            f"median ms, batch {facts['batch']}": f"{said['median'] * 1000:.2f}",
            "p99 ms": f"{said['p99'] * 1000:.2f}",
            "times as fast": faster,
            f"sequences/s, batch {facts['throughput_batch']}": f"{said['throughput']:.1f}",
            "peak memory": size(said["peak_memory"]),
            "cold start s": f"{said['load']:.2f}",
        }


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


def _interval(found: Mapping[str, float | None]) -> str:
    return f"{_number(found['value'])} ({_number(found['low'])} to {_number(found['high'])})"


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.2f}"
