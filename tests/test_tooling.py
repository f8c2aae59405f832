"""What contributors rely on: pinned versions, sessions, the tests of what changed, the package's metadata."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cpu_pipeline

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@localhost")


def load(path: Path) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_constraints_are_exact_and_name_no_place() -> None:
    """No file, no address, no build for one kind of machine: they must hold wherever packages come from."""
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    assert len({canonicalize_name(line.partition("==")[0]) for line in PINS}) == len(PINS) > 100
    assert not [line for line in PINS if line.startswith(("nvidia", "cuda", "triton"))]


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in PINS)}
    wanted = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        if requirement.name != PROJECT["name"]:
            version = pinned.get(canonicalize_name(requirement.name))
            assert version, f"nox -s constraints: {requirement.name} is not pinned"
            assert requirement.specifier.contains(version), f"nox -s constraints: {requirement} is not {version}"


def test_the_package_tells_its_version_and_is_typed() -> None:
    assert (ROOT / "cpu_pipeline" / "py.typed").is_file()
    try:
        assert cpu_pipeline.__version__ == importlib.metadata.version("cpu-pipeline")
    except importlib.metadata.PackageNotFoundError:
        pytest.fail("the tests run in an environment in which the project is installed: pip install -e '.[build,dev]'")


def test_every_suite_is_a_session_and_every_session_explains_itself() -> None:
    noxfile = load(ROOT / "noxfile.py")
    folders = {
        path.name for path in (ROOT / "tests" / "suites").iterdir() if path.is_dir() and any(path.glob("**/test_*.py"))
    }
    assert folders <= {suite.folder.partition("/")[0] for suite in noxfile.SUITES.values()}
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "-l"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    sessions = re.findall(r"^[*-] (\S+)(.*)$", listed, re.MULTILINE)
    assert {"quick", "lint", "tests", "docs", "wheel", "nightly", "constraints"} < {name for name, _ in sessions}
    assert [name for name, about in sessions if " -> " not in about] == []


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small project under git, with one commit on main."""
    both = "def test():\n    from cpu_pipeline import other\n    from cpu_pipeline.store import local\n"
    files = {
        "cpu_pipeline/store/local.py": "",
        "cpu_pipeline/store/_disk.py": "",
        "cpu_pipeline/other.py": "",
        "tests/helper.py": "",
        "tests/store/test_local.py": "from cpu_pipeline.other import x\n",
        "tests/store/test_disk.py": "",
        "tests/test_both.py": both,
        "tests/test_other.py": "",
        "tests/test_fingerprints.py": "",
        "tests/test_helped.py": "import helper\n",
        "tests/suites/slow/test_slow.py": "from cpu_pipeline.store import local\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "tests"),
    [
        ([], []),
        (
            ["cpu_pipeline/store/local.py"],
            ["tests/store/test_local.py", "tests/test_fingerprints.py", "tests/test_both.py"],
        ),
        (["cpu_pipeline/store/_disk.py"], ["tests/store/test_disk.py", "tests/test_fingerprints.py"]),
        (
            ["cpu_pipeline/other.py"],
            ["tests/test_other.py", "tests/test_fingerprints.py", "tests/store/test_local.py", "tests/test_both.py"],
        ),
        (["tests/helper.py"], ["tests/test_helped.py"]),
        (["tests/store/test_new.py", "tests/suites/slow/test_slow.py"], ["tests/store/test_new.py"]),
        (["README.md"], []),
    ],
)
@pytest.mark.parametrize("committed", [False, True])
def test_the_tests_of_what_changed(clone: Path, edited: list[str], tests: list[str], committed: bool) -> None:
    changed = load(ROOT / ".ci" / "changed.py")
    if committed:
        subprocess.run([*GIT, "checkout", "-qb", "work"], cwd=clone, check=True)
    for name in edited:
        (clone / name).write_text("# edited\n")
    if committed and edited:
        subprocess.run([*GIT, "add", "-A"], cwd=clone, check=True)
        subprocess.run([*GIT, "commit", "-qm", "two"], cwd=clone, check=True)
    assert changed.tests(clone, changed.changed(clone, changed.base(clone))) == tests


def test_a_commit_that_is_not_there_is_named(clone: Path) -> None:
    changed = load(ROOT / ".ci" / "changed.py")
    with pytest.raises(SystemExit, match="nowhere is not a commit"):
        changed.changed(clone, "nowhere")


def test_a_run_that_leaves_something_out_can_be_made_to_fail(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_a(): pass\n@pytest.mark.skip\ndef test_b(): pass\n")
    pytest_here = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}"]
    command = [*pytest_here, "-p", "no:cacheprovider", "-p", "conftest", str(tmp_path)]
    env = {"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/bin:/bin"}
    assert subprocess.run(command, env=env, cwd=ROOT, check=False).returncode == 0
    assert subprocess.run([*command, "--no-skips"], env=env, cwd=ROOT, check=False).returncode == 1
    over = subprocess.run([*command, "--budget=1e-9"], env=env, cwd=ROOT, check=False, capture_output=True, text=True)
    assert over.returncode == 0 and "2 tests were not run" in over.stdout
