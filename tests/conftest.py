"""Options of the test run, and the real command as a fixture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="accept the code of every stage as it is now")


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
