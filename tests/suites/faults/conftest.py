"""What every fault is injected into."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import ProjectFixture


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    """A project of its own for each test."""
    return ProjectFixture(tmp_path / "project")
