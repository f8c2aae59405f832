"""Run commands through the loopback Hub of ../shared/hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import ROOT

HUB = ROOT.parent / "shared" / "hub"
SERVE = HUB / "serve.py"


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


PORT = free_port()
"""One port for all commands of a test run: the endpoint is part of a source's identity; another port shares nothing."""


def pipeline(
    home: Path, *words: object, serve: Sequence[object] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `cpu-pipeline` through the Hub; nobody sees a traceback.

    Args:
        home: directory of the store and of HF_HOME; commands with the same one share what they built and fetched.
        words: the command's arguments.
        serve: options of the Hub, such as `--repos`.
        cwd: where the command runs.
    """
    hub = [sys.executable, str(SERVE), "--port", str(PORT), *map(str, serve), "--"]
    done = subprocess.run(
        [*hub, sys.executable, "-m", "cpu_pipeline", *map(str, words)],
        env={**os.environ, "HUB_HOME": str(home)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\nTraceback" not in done.stderr, done.stderr[-3000:]
    return done
