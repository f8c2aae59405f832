"""One small project, built once, that the commands are asked about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import InProcessProject

STEPS = ({"id": "one"}, {"id": "two", "text": "two"}, {"id": "gate", "use": "faulty.gate"})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> InProcessProject:
    """Give a project whose recipe was built; not to be changed."""
    bench = InProcessProject(tmp_path_factory.mktemp("cli") / "project")
    bench.built(bench.recipe(*STEPS))
    return bench


@pytest.fixture
def built(whole: InProcessProject, tmp_path: Path) -> InProcessProject:
    """Give a copy of it, to be changed."""
    shutil.copytree(whole.home, tmp_path / "project", symlinks=True)
    return InProcessProject(tmp_path / "project")
