"""What the schedulers' own tools need: where to find them, and how to get those that are missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scheduling import REMOTE, write_project

from cpu_pipeline.refresh import schedule
from cpu_pipeline.refresh.schedule import Kind, Order

Made = Callable[..., "dict[str, str]"]


def need(program: str, package: str) -> str:
    """Return a program's path; a machine without it is told how to get it."""
    found = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{program} is missing: apt-get install {package}"
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "pro ject 50%")


@pytest.fixture
def made(project: Path) -> Made:
    """Make the files of one scheduler for a project whose names are hard to quote."""

    def make(kind: str, **more: object) -> dict[str, str]:
        jobs = schedule.jobs(schedule.find_recipes(project), project)
        said = {"program": schedule.this_program(), "store_remote": REMOTE, **more}
        return schedule.files(Kind(kind), Order(jobs, project, **said))  # type: ignore[arg-type]

    return make
