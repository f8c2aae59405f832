"""Put on PYTHONPATH by tests, so that what FAULT_HOOK names happens inside a command and its workers."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def clock() -> None:
    """Let the clock stand ten years earlier, and go backwards."""
    real, begin = time.time, time.time()
    time.time = lambda: begin - 315_360_000 - (real() - begin)


def change() -> None:
    """Replace FAULT_FILE by FAULT_WITH just before its n-th opening, and by FAULT_BACK before the next.

    Openings are counted over all processes, in FAULT_COUNT.
    """
    file, count, at = os.environ["FAULT_FILE"], Path(os.environ["FAULT_COUNT"]), int(os.environ["FAULT_AT"])
    turns = {at: os.environ["FAULT_WITH"], at + 1: os.environ["FAULT_BACK"]}

    def heard(event: str, given: tuple[Any, ...]) -> None:
        if event != "open" or str(given[0]) != file:
            return
        with count.open("a", encoding="ascii") as tally:
            tally.write(".")
        if turn := turns.get(count.stat().st_size):
            fresh = count.with_name("fresh")
            fresh.write_bytes(Path(turn).read_bytes())
            fresh.replace(file)

    sys.addaudithook(heard)


def patience() -> None:
    """Let a build that is interrupted wait for its steps for an hour, unless it is interrupted again."""
    from cpu_pipeline.engine import build

    build.GRACE = 3600.0


if "FAULT_HOOK" in os.environ:
    {"clock": clock, "change": change, "patience": patience}[os.environ["FAULT_HOOK"]]()
