"""Give tests the interpreter of the optimum environment, and the checkpoints and exports that other tests use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from stages.conftest import checkpoint, exported, fused  # noqa: F401

from cpu_pipeline.engine import environments

Run = Callable[..., None]


@pytest.fixture(scope="session")
def optimum() -> Run:
    """Run a script of this folder in the optimum environment, offline; the one place that knows where that is."""
    python = environments.interpreter("optimum").python

    def run(script: str, *arguments: Path) -> None:
        done = subprocess.run(
            [python, str(Path(__file__).with_name(script)), *map(str, arguments)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CI": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run
