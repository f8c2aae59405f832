"""What is timed of each side: every call's seconds while it is measured, and their summary as facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cpu_pipeline.stages._base import Count, Facts, Figure
from cpu_pipeline.stages.validate._gate import Side


class SideFacts(Facts):
    """What was measured of one side."""

    median: float
    """Seconds of a call."""
    p90: float
    """Seconds within which 90 % of calls ended."""
    p99: float
    """Seconds within which 99 % of calls ended."""
    throughput: float
    """Sequences in a second."""
    load: float
    """Seconds until a fresh process had the model ready (median)."""
    peak_memory: Count
    """Most bytes that a process held."""


class SpeedupFacts(Facts):
    """How many times as fast as the reference the candidate is: the ratio of medians, and its interval."""

    value: Figure
    low: Figure
    high: Figure


class LatencyFacts(Facts):
    """What was measured of both sides, and under which conditions."""

    candidate: SideFacts
    reference: SideFacts
    speedup: SpeedupFacts
    confidence: float
    """Level of the interval, 0 to 1."""
    batch: Count
    """Sequences in each call."""
    throughput_batch: Count
    """Sequences in each call of the measurement of throughput."""
    tokens: float
    """Tokens of a sequence (or samples of a recording), with padding: median over the batches."""
    unit: str = "tokens"
    """What `tokens` counts."""
    calls: Count
    """Calls of each side."""
    threads: Count
    load_average: float
    """Load average of the machine (one minute) when the measurement began."""


@dataclass
class Measurement:
    """What the processes of one side took."""

    turns: list[list[float]] = field(default_factory=list)
    """Seconds of each call: shape (turns, calls)."""
    loaded: list[list[float]] = field(default_factory=list)
    """The same of the measurement of throughput; empty where none was asked for."""
    loads: list[float] = field(default_factory=list)
    """Seconds that each process took to have the model ready."""
    peak_memory: int = 0
    """Most bytes that any process held."""

    def facts(self, sequences: int) -> SideFacts:
        """Summarize, given the number of sequences in a call of the measurement of throughput."""
        import numpy as np

        return SideFacts(
            median=float(np.median(self.turns)),
            p90=float(np.quantile(self.turns, 0.9)),
            p99=float(np.quantile(self.turns, 0.99)),
            throughput=sequences / float(np.mean(self.loaded or self.turns)),
            load=float(np.median(self.loads)),
            peak_memory=self.peak_memory,
        )


def write(path: Path, sides: Mapping[Side, Measurement]) -> None:
    """Write every call's seconds: side -> turns; under `throughput` those of its own measurement."""
    timings: dict[str, object] = {side: found.turns for side, found in sides.items()}
    if all(found.loaded for found in sides.values()):
        timings["throughput"] = {side: found.loaded for side, found in sides.items()}
    path.write_text(json.dumps(timings) + "\n", encoding="utf-8")
