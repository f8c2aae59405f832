"""One small project, built once, that the commands are asked about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import ProjectFixture

STEPS = ({"id": "one"}, {"id": "two", "text": "two"}, {"id": "gate", "use": "faulty.gate"})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ProjectFixture:
    """Give a project whose recipe was built; not to be changed."""
    bench = ProjectFixture(tmp_path_factory.mktemp("cli") / "project")
    bench.built(bench.recipe(*STEPS))
    return bench


@pytest.fixture
def built(whole: ProjectFixture, tmp_path: Path) -> ProjectFixture:
    """Give a copy of it, to be changed."""
    shutil.copytree(whole.home, tmp_path / "project", symlinks=True)
    return ProjectFixture(tmp_path / "project")
