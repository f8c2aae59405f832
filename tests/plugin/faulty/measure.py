"""A measurement: nothing else may run while it does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cpu_pipeline.stages._base import Host, Inputs, Job, Stage


class FaultyMeasure(Stage):
    """Sleep, alone, and write down when."""

    runs: Path
    """A file that gets a line for each run: when it began and when it ended."""
    seconds: float = 0.3
    """How long it takes."""

    takes: ClassVar = {"candidate": {"hf"}}
    alone: ClassVar = True
    unkeyed: ClassVar = frozenset({"runs", "seconds"})

    def gives(self) -> str:
        return "report"

    def host(self) -> Host:
        return "machine"

    def run(self, inputs: Inputs, out: Path, job: Job) -> Mapping[str, Any]:
        """Sleep between two looks at the clock."""
        began = time.time()
        time.sleep(self.seconds)
        with self.runs.open("a", encoding="utf-8") as file:
            file.write(f"ended measure {began} {time.time()}\n")
        (out / "threads.txt").write_text(f"{job.threads}\n", encoding="utf-8")
        return {"seconds": round(time.time() - began, 1)}
