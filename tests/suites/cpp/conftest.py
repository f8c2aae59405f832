"""Build the C++ programs of docs/cpp once, as its README says, against the installed torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

SOURCE = Path(__file__).parents[3] / "docs" / "cpp"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a built program by the name of its target."""
    lacking = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if lacking and sys.platform != "linux":
        pytest.skip(f"{', '.join(lacking)} is not here")
    if lacking:
        pytest.fail(f"the C++ programs of docs/cpp cannot be built: install {', '.join(lacking)}")
    build = tmp_path_factory.mktemp("cpp")
    make = ["-G", "Ninja"] if shutil.which("ninja") else []
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    _run("cmake", *make, "-S", str(SOURCE), "-B", str(build), prefix)

    @cache
    def give(target: str) -> Path:
        _run("cmake", "--build", str(build), "--target", target)
        return build / target

    return give


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
