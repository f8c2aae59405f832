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
    """Change the file FAULT_FILE just before its n-th opening, counted over all processes in FAULT_COUNT."""
    file, count, at = os.environ["FAULT_FILE"], Path(os.environ["FAULT_COUNT"]), int(os.environ["FAULT_AT"])

    def heard(event: str, given: tuple[Any, ...]) -> None:
        if event != "open" or str(given[0]) != file:
            return
        with count.open("a", encoding="ascii") as tally:
            tally.write(".")
        if count.stat().st_size == at:
            with (Path(file).parent / "." / "fresh").open("wb") as fresh:
                fresh.write(Path(os.environ["FAULT_WITH"]).read_bytes())
            os.replace(Path(file).parent / "fresh", file)  # noqa: PTH105

    sys.addaudithook(heard)


if "FAULT_HOOK" in os.environ:
    {"clock": clock, "change": change}[os.environ["FAULT_HOOK"]]()
