"""Build recipes twice on this machine: here, and in another virtual environment with everything else different, too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from suites.reproducible.held import Twice
from suites.reproducible.places import Place, language, lay_out, somebody, write_wide

from cpu_pipeline import api
from cpu_pipeline.engine import environments


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the wide model once: no two pickles of torch are alike."""
    home = tmp_path_factory.mktemp("wide")
    write_wide(home)
    return home


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> Place:
    """Build with the environment of the tests, as the user who runs them, one step after another."""
    home = tmp_path_factory.mktemp("here")
    lay_out(home, wide, turned=False)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    env.pop("OMP_NUM_THREADS", None)
    return Place(home, [sys.executable], env, 0o022, [])


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Path]:
    """Give a folder that another user may reach; pytest closes its own anew whenever it starts."""
    with tempfile.TemporaryDirectory(prefix="there-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def there(elsewhere: Path, wide: Path) -> Place:
    """Build with another environment in another place, as another user, in another language, two steps at once."""
    home = elsewhere / "an öther place"
    home.mkdir()
    subprocess.run(["bash", ROOT / ".ci" / "venv", home / "venv", sys.executable], check=True)
    lay_out(home, wide, turned=True)
    for name in ("home", "tmp"):
        (home / name).mkdir()
    python = str(home / "venv" / "bin" / "python")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home / "home"),
        "TMPDIR": str(home / "tmp"),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "77",
        "TORCHINDUCTOR_CPP_MIN_CHUNK_SIZE": "64",
        "OMP_NUM_THREADS": "1",
        "CPU_PIPELINE_ENVIRONMENTS": str(environments.root()),
        **language(),
    }
    return Place(home, [*somebody(home, python), python], env, 0o077, ["--jobs", "2"])


@pytest.fixture(scope="session")
def twice(here: Place, there: Place) -> Callable[[str], Twice]:
    """Build a recipe in both places, once."""

    @cache
    def build(name: str) -> Twice:
        nodes = api.plan(api.load_recipe(here.home / "recipes" / f"{name}.yaml")).nodes
        uses = {step: node.use for step, node in nodes.items()}
        return Twice(here.build(name), there.build(name), uses)

    return build
