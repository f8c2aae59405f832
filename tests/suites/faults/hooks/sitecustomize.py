"""Put on PYTHONPATH by tests, so that what FAULT_HOOK names happens inside a command and its workers."""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any


def clock() -> None:
    """Let the clock stand ten years earlier, and go backwards."""
    real, begin = time.time, time.time()
    time.time = lambda: begin - 315_360_000 - (real() - begin)

    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

    datetime.datetime = Past  # type: ignore[misc]  # a hook


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


def memory() -> None:
    """Leave the step of FAULT_STAGE no more than FAULT_BYTES of memory, once it has imported FAULT_IMPORTS."""
    import importlib
    import resource

    import psutil

    if not any("cpu_pipeline.engine.worker" in word for word in sys.orig_argv):
        return
    from cpu_pipeline import stages

    real = stages.get

    def capped(name: str) -> Any:
        found = real(name)
        if name == os.environ["FAULT_STAGE"]:
            for library in os.environ["FAULT_IMPORTS"].split():
                importlib.import_module(library)
            most = psutil.Process().memory_info().vms + int(os.environ["FAULT_BYTES"])
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return found

    stages.get = capped


def send() -> None:
    """Send this command FAULT_SIGNAL at its n-th import or opening of a file since its own code began (FAULT_AT).

    The number of them goes into FAULT_COUNT at the end of a command that gets none.
    """
    import atexit

    if any("cpu_pipeline.engine.worker" in word for word in sys.orig_argv):
        return
    at, number, seen = int(os.environ["FAULT_AT"]), int(os.environ["FAULT_SIGNAL"]), [0]

    def heard(event: str, given: tuple[Any, ...]) -> None:
        if event not in ("import", "open") or (not seen[0] and given[0] != "cpu_pipeline.core"):
            return
        seen[0] += 1
        if seen[0] == at:
            os.kill(os.getpid(), number)

    sys.addaudithook(heard)
    if not at:
        atexit.register(lambda: Path(os.environ["FAULT_COUNT"]).write_text(str(seen[0]), encoding="ascii"))


if "FAULT_HOOK" in os.environ:
    hooks = {"clock": clock, "change": change, "patience": patience, "memory": memory, "send": send}
    hooks[os.environ["FAULT_HOOK"]]()
