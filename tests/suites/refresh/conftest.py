"""The project that every story of a refresh begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites.refresh.refreshed import RefreshedProject


@pytest.fixture
def project(tmp_path: Path) -> RefreshedProject:
    return RefreshedProject(tmp_path / "project")
