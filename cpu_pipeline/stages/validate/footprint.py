"""What does the artifact cost the machine that serves it: memory, its growth, time to start, files on disk?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field

from cpu_pipeline import backends
from cpu_pipeline.core import host as this_host
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.figures import BYTES, Cell, Note, Quantity, Table
from cpu_pipeline.core.text import size
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Count, Facts, Figure, Host, Inputs, Job, Verdict
from cpu_pipeline.stages.validate._gate import Gate, only_measured, spread, task_of
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

MIB = 1 << 20
LARGEST = 1 << 20
"""MiB in a TiB: no bound of a size is larger."""
BLOCKS = 20
"""Blocks of requests of which the slope is computed: neighbours resemble each other, medians of blocks less so."""
SIZES = (1, 2, 4, 8)
"""Sequences in a request, in turns."""
SAMPLES = 64
"""Sequences that requests are made of."""
CONFIDENCE = 0.95


class FootprintFacts(Facts):
    """What one fresh process of the artifact took."""

    requests: Count
    """Requests of changing shapes after the warm-up."""
    shapes: Count
    """Different shapes among them."""
    peak_memory: Count
    """Most bytes that the process held, its interpreter and libraries included."""
    growth: Figure
    """Bytes that it grew by with each request: Theil and Sen's slope over medians of blocks."""
    growth_low: Figure
    """Lower end of the slope's 95 % interval (Sen 1968)."""
    growth_high: Figure
    """Upper end of it."""
    grown: int
    """Bytes between the medians of the first and the last block."""
    load: float
    """Seconds from starting the process until the model was ready, imports included."""
    first: float
    """Seconds from starting the process until the first answer."""
    size: Count
    """Bytes of the artifact's files."""
    threads: Count
    on: str
    """`rows`, or `random tokens` where the recipe has no validation rows."""


class ValidateFootprint(Gate):
    """Measure memory, its growth over requests of changing shapes, start-up and size, in a fresh process."""

    requests: int = Field(default=500, ge=2 * BLOCKS)
    """Requests of changing batch size and length, of which the growth of memory is computed."""
    max_memory: float | None = Field(default=None, gt=0, le=LARGEST, allow_inf_nan=False)
    """Most memory that the process may hold at any time, its interpreter and libraries included, in MiB."""
    max_growth: float | None = Field(default=None, ge=0, le=LARGEST, allow_inf_nan=False)
    """How much the process may grow in 1,000 requests, in MiB; judged on the upper end of the slope's interval."""
    max_load: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    """Most seconds from starting the process until the model is ready, imports included."""
    max_first: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    """Most seconds from starting the process until the first answer."""
    max_size: float | None = Field(default=None, gt=0, le=LARGEST, allow_inf_nan=False)
    """Largest size of the artifact's files, in MiB."""

    facts_model: ClassVar = FootprintFacts
    takes: ClassVar = {"candidate": frozenset(backends.names())}
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy", "scipy")
    alone: ClassVar = True
    reproducible: ClassVar = "It measures time and memory, which no two measurements take alike."
    bounds: ClassVar = frozenset({"max_memory", "max_growth", "max_load", "max_first", "max_size"})
    may_only_measure: ClassVar = True
    unkeyed: ClassVar = bounds
    remedies: ClassVar = ("max_memory", "max_growth", "max_load", "max_first", "max_size")

    def host(self) -> Host:
        """Say that times depend on the whole machine."""
        return "machine"

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Tell a bound on memory that cannot fail: this machine has less."""
        most = this_host.memory()
        if self.max_memory is not None and self.max_memory * MIB >= most:
            yield RecipeError(f"max_memory: {self.max_memory:g} MiB cannot fail: this machine has {size(most)}")
        if self.max_growth is not None and self.max_growth * MIB * self.requests / 1000 >= most:
            yield RecipeError(
                f"max_growth: {self.max_growth:g} MiB in 1,000 requests cannot fail: {self.requests} requests would "
                f"need more than this machine has, {size(most)}"
            )

    def run(self, inputs: Inputs, out: Path, job: Job) -> FootprintFacts:
        """Measure one fresh process; keep the memory after each request in memory.json.

        Raises:
            StageFailed: the artifact can't be loaded or run.
        """
        task, model = task_of(job, "footprint"), inputs["candidate"]
        kinds = task.input_kinds(model.path)
        if "validation" in job.data:
            rows = spread(task.read_rows(job.data["validation"]), SAMPLES)
            features = spread(task.encode(rows, model.path), SAMPLES)
        else:
            features = [feature for batch in task.examples(model.path) for feature in batch]
        # The first request has the longest sequence and the most of them: what comes after needs no more at once.
        warm, asked = requests(features, self.requests)
        names = list(kinds)
        batches: list[Arrays] = [pad(group, names, kinds) for group in (*warm, *asked)]
        with job.timer(model) as timer:
            first, _ = timer.trace(batches[:1])
            timer.trace(batches[: len(warm)])
            _, memory = timer.trace(batches[len(warm) :])
            load, peak = timer.load_seconds, timer.peak_memory
        slope, low, high, grown = growth(memory)
        (out / "memory.json").write_text(json.dumps(memory) + "\n", encoding="utf-8")
        return FootprintFacts(
            requests=len(memory),
            shapes=len({tuple(array.shape for array in batch.values()) for batch in batches[len(warm) :]}),
            peak_memory=peak,
            growth=slope,
            growth_low=low,
            growth_high=high,
            grown=grown,
            load=load,
            first=load + first[0],
            size=sum(path.stat().st_size for path in model.path.rglob("*") if path.is_file()),
            threads=job.threads,
            on="rows" if "validation" in job.data else "random tokens",
        )

    def trial(self, rows: int) -> Self:
        """Ask a tenth of the requests."""
        return self.model_copy(update={"requests": max(2 * BLOCKS, self.requests // 10)})

    def judge(self, facts: FootprintFacts) -> list[Verdict]:
        """Judge each bound; of the growth the upper end of its interval."""
        high = None if facts.growth_high is None else facts.growth_high * 1000
        grown = None if facts.growth is None else facts.growth * 1000
        measured = (
            ("memory", self.max_memory, facts.peak_memory / MIB, f"peak memory {size(facts.peak_memory)}", "MiB"),
            ("growth", self.max_growth, None if high is None else high / MIB,
             f"grows by {_mib(grown)} in 1,000 requests (upper end {_mib(high)})", "MiB"),
            ("load", self.max_load, facts.load, f"ready after {facts.load:.2f} s", "s"),
            ("first", self.max_first, facts.first, f"first answer after {facts.first:.2f} s", "s"),
            ("size", self.max_size, facts.size / MIB, f"files of {size(facts.size)}", "MiB"),
        )  # fmt: skip
        verdicts = [
            Verdict(
                check, value is not None and value <= bound, f"{says}, at most {bound:g} {unit} asked", value, bound
            )
            for check, bound, value, says, unit in measured
            if bound is not None
        ]
        return [*only_measured(self), *verdicts]

    def details(self, facts: FootprintFacts) -> Sequence[Table | Note]:
        """Return what was measured as a table, and how."""
        about = (
            f"{facts.requests} requests of {facts.shapes} shapes, on {facts.on}, {facts.threads} threads, in a fresh "
            f"process; between the first and the last twentieth of them it grew by {size(abs(facts.grown))}"
            f"{' less' if facts.grown < 0 else ''}. The largest request came before, so that it is no growth."
        )
        return [Table("of", {"candidate": self.cells(facts, "candidate")}), Note(about)]

    def headline(self, facts: FootprintFacts) -> str:
        """Write the peak of memory."""
        return f"peak memory {size(facts.peak_memory)}"

    def cells(self, facts: FootprintFacts, side: str) -> Sequence[Cell]:
        """Return peak memory, growth, start-up and size."""
        if side != "candidate":
            return []
        ends = (
            None if end is None else end * 1000 / MIB for end in (facts.growth, facts.growth_low, facts.growth_high)
        )
        return [
            Cell("peak memory alone", Quantity(facts.peak_memory, BYTES)),
            Cell("growth in 1,000 requests", Quantity(next(ends), "MiB", next(ends), next(ends))),
            Cell("ready after", Quantity(facts.load, "s")),
            Cell("first answer after", Quantity(facts.first, "s")),
        ]


def _mib(count: float | None) -> str:
    return "NaN" if count is None else f"{count / MIB:.2f} MiB"


def requests(features: Sequence[Feature], count: int) -> tuple[list[list[Feature]], list[list[Feature]]]:
    """Arrange requests of changing sizes and lengths: those of the warm-up, the largest of all first, and `count` more.

    A request holds one sequence, as often as its size says: also sequences that are never padded share a batch so.
    """
    order = sorted(features, key=lambda feature: -feature.length)
    step = max(1, len(order) * 3 // 8) | 1  # so that neighbours in time differ in length
    found = []
    for number in range(count):
        start = number * step % len(order)
        found.append([order[start]] * SIZES[number % len(SIZES)])
    warm = [[order[0]] * size_ for size_ in reversed(SIZES)]
    return warm, found


def growth(memory: Sequence[int]) -> tuple[float, float, float, int]:
    """Return the slope of memory in bytes a request, the ends of its interval, and what it grew by in all.

    Theil and Sen's slope over the medians of BLOCKS blocks, and the interval of Sen (1968).
    """
    import numpy as np
    from scipy.stats import theilslopes

    blocks = np.array_split(np.asarray(memory, dtype=np.float64), BLOCKS)
    medians = np.array([np.median(block) for block in blocks])
    centers = np.cumsum([len(block) for block in blocks]) - np.array([len(block) for block in blocks]) / 2
    found = theilslopes(medians, centers, alpha=CONFIDENCE)
    return float(found[0]), float(found[2]), float(found[3]), int(medians[-1] - medians[0])
