"""Options of the test run, and the real command as a fixture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run, and no failure because a machine is busy.
settings.register_profile("cpu-pipeline", deadline=None, derandomize=True, database=None)
settings.load_profile("cpu-pipeline")

ROOT = Path(__file__).parent.parent
BEGIN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="accept the code of every stage as it is now")
    parser.addoption(
        "--no-skips", action="store_true", help="fail when a test is skipped, deselected or expected to fail"
    )
    parser.addoption("--budget", type=float, metavar="SECONDS", help="start no test after this time; use with -x")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left something out, if that was asked for."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None:
        left_out = [kind for kind in ("skipped", "xfailed", "deselected") if reporter.stats.get(kind)]
        if left_out and session.exitstatus == pytest.ExitCode.OK:
            reporter.write_line(f"\n--no-skips: tests were {', '.join(left_out)}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_runtest_setup(item: pytest.Item) -> None:
    """End the run when its time is over: what it has not reached is named, and is no failure."""
    budget = item.config.getoption("--budget")
    if budget and time.monotonic() - BEGIN > budget:
        left = len(item.session.items) - item.session.items.index(item)
        pytest.exit(f"{budget:.0f} seconds are over: {left} tests were not run; `nox -s tests` runs all", returncode=0)


@dataclass(frozen=True)
class Said:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Read standard output as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run `cpu-pipeline` in this process: quick, and the same parsing, printing and exit codes."""
    from cpu_pipeline.cli import main

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def command() -> Cli:
    """Run `cpu-pipeline` as a process of its own."""

    def run(*arguments: object, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "cpu_pipeline", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run
