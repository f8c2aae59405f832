"""Isolated environments, for packages that conflict with the default one: their pins, paths, creation and checks.

Each `pins/NAME.txt` pins an environment exactly, package by package. It is created with venv and pip in a directory
named after the digest of its pins, below the user's data directory; a marker, written last, says that it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.files import user_folder
from cpu_pipeline.core.text import did_you_mean

DEFAULT = "default"
"""The environment that this process runs in."""
PINS = Path(__file__).parent / "pins"
MARKER = "complete.json"
"""Written last: an environment without it is incomplete."""
PACKAGE = Path(__file__).parent.parent

LOCATE = (
    "import importlib.util, sys; folder = sys.argv.pop(1); "
    "spec = importlib.util.spec_from_file_location("
    "'cpu_pipeline', folder + '/__init__.py', submodule_search_locations=[folder]); "
    "module = sys.modules['cpu_pipeline'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)"
)
"""Code that imports this package from its directory, and nothing else that is installed beside it."""
START = (
    f"{LOCATE}; import runpy; runpy.run_module('cpu_pipeline.engine.worker.main', run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that workers run in."""

    python: str
    paths: tuple[str, ...] = ()
    """Where it looks for modules besides its own: a clone, a plug-in."""

    @property
    def command(self) -> list[str]:
        """Return the command that starts a worker in it; the parent's process number is to be appended."""
        return [self.python, "-P", "-c", START, str(PACKAGE)]


@dataclass(frozen=True)
class Environment:
    """An environment as `pins/NAME.txt` defines it."""

    name: str
    """Its name."""
    about: str
    """What it is for, in one line."""
    status: str
    """Whether its upstream is maintained."""
    warning: str
    """What every user of it has to know; may be empty."""
    pins: Mapping[str, str]
    """Distribution, in normal form -> exact version."""
    digest: str
    """Digest (sha256, hex) of the pins alone: comments and order do not count."""

    @property
    def folder(self) -> Path:
        """Return its directory, which need not exist."""
        return root() / f"{self.name}-{self.digest[:12]}-py{sys.version_info[0]}.{sys.version_info[1]}"

    @property
    def python(self) -> Path:
        """Return the path of its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def ready(self) -> bool:
        """Say whether it is complete; one that would be in a home directory which is unknown is not."""
        try:
            root()
        except RecipeError:
            return False
        return (self.folder / MARKER).is_file() and self.python.is_file()


def root() -> Path:
    """Return the directory of all environments: CPU_PIPELINE_ENVIRONMENTS, or one in the user's data directory.

    Raises:
        RecipeError: the home directory is unknown.
    """
    if path := os.environ.get("CPU_PIPELINE_ENVIRONMENTS"):
        return Path(path).absolute()
    return user_folder("data", "name a folder by CPU_PIPELINE_ENVIRONMENTS") / "environments"


def names() -> list[str]:
    """List the environments besides the default one."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


@cache
def get(name: str) -> Environment:
    """Read the definition of an environment.

    Raises:
        RecipeError: no environment has this name.
    """
    path = PINS / f"{name}.txt"
    if name not in names():
        raise RecipeError(
            f"no environment is called `{name}`{did_you_mean(name, names())}; there are: {', '.join(names())}"
        )
    about, pins = {"about": "", "status": "", "warning": ""}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"#\s*(about|status|warning):\s*(.+)", line):
            about[match[1]] = match[2].strip()
        elif line.strip() and not line.startswith("#"):
            distribution, _, version = line.partition("==")
            pins[normal(distribution)] = version.strip()
    text = "".join(f"{distribution}=={version}\n" for distribution, version in sorted(pins.items()))
    return Environment(name, **about, pins=pins, digest=hashlib.sha256(text.encode()).hexdigest())


def normal(distribution: str) -> str:
    """Write a distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def interpreter(name: str) -> Interpreter:
    """Return the interpreter of an environment.

    Raises:
        BackendMissing: it is not installed; the message names the command that installs it.
    """
    if name == DEFAULT:
        return Interpreter(sys.executable, tuple(_own_paths()))
    environment = get(name)
    if not environment.ready:
        raise BackendMissing(
            f"the environment `{name}` is not installed ({environment.about.rstrip('.')}); create it with "
            f"`cpu-pipeline env create {name}`, or let `cpu-pipeline run --create-envs` do so"
        )
    return Interpreter(str(environment.python))


def create(name: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Create an environment, or complete one; several processes may do so at once.

    Args:
        name: the environment.
        tell: called with a line of text at each step.

    Raises:
        BackendMissing: pip could not install the pins, or what it installed is broken.
    """
    environment = get(name)
    root().mkdir(parents=True, exist_ok=True)
    with FileLock(environment.folder.with_name(f"{environment.folder.name}.lock")):
        if environment.ready:
            return environment.folder
        # An incomplete environment is completed if possible, and otherwise created from nothing.
        for fresh in (False, True) if environment.python.exists() else (True,):
            problems = _install(environment, tell, fresh)
            if not problems:
                return environment.folder
            tell(f"{name}: {problems[0]}")
        raise BackendMissing(
            f"the environment `{name}` could not be created: {problems[0]}; its log is {_log(environment)}"
        )


def _install(environment: Environment, tell: Callable[[str], None], fresh: bool) -> list[str]:
    """Create an environment, over what exists or from nothing; return what is wrong with it."""
    if fresh or not environment.python.exists():
        shutil.rmtree(environment.folder, ignore_errors=True)
        tell(f"{environment.name}: making a virtual environment in {environment.folder}")
        if not _logged(environment, [sys.executable, "-I", "-m", "venv", str(environment.folder)], "w"):
            return [_last_error(environment, "venv failed")]
    tell(f"{environment.name}: installing {len(environment.pins)} packages with pip")
    arguments = ["install", "--disable-pip-version-check", "--no-input", "-r", str(PINS / f"{environment.name}.txt")]
    if not _logged(environment, [str(environment.python), "-I", "-m", "pip", *arguments], "a"):
        return [_last_error(environment, "pip failed")]
    if problems := broken(environment):
        return problems
    marker = environment.folder / MARKER
    part = marker.with_suffix(".part")
    part.write_text(
        json.dumps({"name": environment.name, "pins": environment.digest, "python": sys.version.split()[0]}) + "\n"
    )
    part.replace(marker)
    tell(f"{environment.name}: ready")
    return []


def problems(name: str) -> list[str]:
    """List what is wrong with an environment; nothing when it is complete and a worker starts in it."""
    environment = get(name)
    if not environment.ready:
        return [f"it is not installed; create it with `cpu-pipeline env create {name}`"]
    problems = broken(environment)
    command = [str(environment.python), "-P", "-c", f"{LOCATE}; import cpu_pipeline.engine.worker.main", str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        problems.append(f"a worker does not start in it: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return problems


def broken(environment: Environment) -> list[str]:
    """Compare an installed environment with its pins, file by file; return what differs."""
    paths = sorted({str(path) for path in environment.folder.glob("lib*/python*/site-packages")})
    paths += [str(path) for path in environment.folder.glob("Lib/site-packages")]
    found = {normal(d.metadata["Name"]): d for d in importlib.metadata.distributions(path=paths)}
    problems = []
    for name, version in sorted(environment.pins.items()):
        if name not in found:
            problems.append(f"{name} is not installed")
        # A local version label (`2.13.0+cpu`) names the build, not the version.
        elif found[name].version.partition("+")[0] != version:
            problems.append(f"{name} is {found[name].version}, not {version}")
        elif (lost := _lost(found[name])) is not None:
            problems.append(f"{name} lacks {lost}")
    return problems


def _lost(distribution: importlib.metadata.Distribution) -> str | None:
    """Name the first file of a distribution that is missing."""
    if distribution.files is None:
        return "its list of files"
    absent = (
        str(file) for file in distribution.files if file.suffix != ".pyc" and not Path(str(file.locate())).exists()
    )
    return next(absent, None)


def remove(name: str) -> list[Path]:
    """Remove an environment, also those of other pins and other versions of Python; return the directories."""
    get(name)
    removed = []
    for folder in sorted(root().glob(f"{name}-*-py*")):
        if folder.is_dir():
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                # The marker first: an environment that is half removed is incomplete.
                (folder / MARKER).unlink(missing_ok=True)
                shutil.rmtree(folder)
            removed.append(folder)
    return removed


def _logged(environment: Environment, command: Sequence[str], mode: str) -> bool:
    """Run a command with its output in the log; say whether it succeeded."""
    with _log(environment).open(mode, encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode == 0


def _log(environment: Environment) -> Path:
    return environment.folder.with_name(f"{environment.folder.name}.log")


def _last_error(environment: Environment, failure: str) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = [
            line for line in _log(environment).read_text(errors="replace").splitlines() if line.startswith("ERROR")
        ]
    return f"{failure}: {lines[-1].removeprefix('ERROR: ')}" if lines else failure


def _own_paths() -> list[str]:
    """List the search paths that this process has beyond every process of its interpreter: a clone, a plug-in."""
    standard = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths = [Path(p) for p in sys.path if p]
    return [str(p) for p in paths if p not in standard and p.parent not in standard and p.suffix != ".zip"]
