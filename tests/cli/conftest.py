"""One small project, built once, that the commands are asked about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults.bench import Bench

STEPS = ({"id": "one"}, {"id": "two", "text": "two"}, {"id": "gate", "use": "faulty.gate"})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Give a project whose recipe was built; not to be changed."""
    bench = Bench(tmp_path_factory.mktemp("cli") / "project")
    bench.built(bench.recipe(*STEPS))
    return bench


@pytest.fixture
def built(whole: Bench, tmp_path: Path) -> Bench:
    """Give a copy of it, to be changed."""
    shutil.copytree(whole.home, tmp_path / "project", symlinks=True)
    return Bench(tmp_path / "project")
