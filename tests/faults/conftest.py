"""What every fault is injected into."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A project of its own for each test."""
    return Bench(tmp_path / "project")
