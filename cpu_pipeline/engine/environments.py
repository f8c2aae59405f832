"""The stacks that cannot live beside the default one: what is in each, where it is, how it is made.

Each `pins/NAME.txt` pins one exactly, package by package. It is made with venv and pip in a folder named after
the digest of its pins, below the user's data directory; a marker, written last, says that it is whole.
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

import platformdirs
from filelock import FileLock

from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.text import did_you_mean

DEFAULT = "default"
"""The environment that this process runs in."""
PINS = Path(__file__).parent / "pins"
MARKER = "complete.json"
"""Written last: an environment without it is half made."""
PACKAGE = Path(__file__).parent.parent

LOCATE = (
    "import importlib.util, sys; place = sys.argv.pop(1); "
    "spec = importlib.util.spec_from_file_location("
    "'cpu_pipeline', place + '/__init__.py', submodule_search_locations=[place]); "
    "module = sys.modules['cpu_pipeline'] = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)"
)
"""Import this package from where it is, and nothing else that is installed there."""
START = (
    f"{LOCATE}; import runpy; runpy.run_module('cpu_pipeline.engine.worker.main', run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that workers run in."""

    python: str
    paths: tuple[str, ...] = ()
    """Where it looks for modules beyond what it does by itself: a clone, a plug-in."""

    @property
    def command(self) -> list[str]:
        """Return the words that start a worker in it; its parent's process number comes after them."""
        return [self.python, "-P", "-c", START, str(PACKAGE)]


@dataclass(frozen=True)
class Environment:
    """What `pins/NAME.txt` says."""

    name: str
    about: str
    status: str
    """How it stands with its upstream."""
    warning: str
    """What everybody who uses it is to know; empty when there is nothing."""
    pins: Mapping[str, str]
    """Distribution, in normal form -> exact version."""
    digest: str
    """Of the pins alone: comments and order do not count."""

    @property
    def folder(self) -> Path:
        """Name the folder that holds it, or will."""
        return root() / f"{self.name}-{self.digest[:12]}-py{sys.version_info[0]}.{sys.version_info[1]}"

    @property
    def python(self) -> Path:
        """Name its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def ready(self) -> bool:
        """Say whether it is whole."""
        return (self.folder / MARKER).is_file() and self.python.is_file()


def root() -> Path:
    """Name the folder of this user's environments: CPU_PIPELINE_ENVIRONMENTS, or one in the user's data directory."""
    if said := os.environ.get("CPU_PIPELINE_ENVIRONMENTS"):
        return Path(said).absolute()
    return Path(platformdirs.user_data_dir("cpu-pipeline")) / "environments"


def names() -> list[str]:
    """List the environments there are besides the default one."""
    return sorted(path.stem for path in PINS.glob("*.txt"))


@cache
def get(name: str) -> Environment:
    """Read an environment's pins.

    Raises:
        RecipeError: there is none of this name.
    """
    path = PINS / f"{name}.txt"
    if name not in names():
        raise RecipeError(
            f"no environment is called `{name}`{did_you_mean(name, names())}; there are: {', '.join(names())}"
        )
    said, pins = {"about": "", "status": "", "warning": ""}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"#\s*(about|status|warning):\s*(.+)", line):
            said[match[1]] = match[2].strip()
        elif line.strip() and not line.startswith("#"):
            distribution, _, version = line.partition("==")
            pins[normal(distribution)] = version.strip()
    text = "".join(f"{distribution}=={version}\n" for distribution, version in sorted(pins.items()))
    return Environment(name, **said, pins=pins, digest=hashlib.sha256(text.encode()).hexdigest())


def normal(distribution: str) -> str:
    """Write a distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def interpreter(name: str) -> Interpreter:
    """Return the interpreter of an environment.

    Raises:
        BackendMissing: it is not made yet; says how to make it.
    """
    if name == DEFAULT:
        return Interpreter(sys.executable, tuple(_own_paths()))
    here = get(name)
    if not here.ready:
        raise BackendMissing(
            f"the environment `{name}` is not here ({here.about.rstrip('.')}); make it with "
            f"`cpu-pipeline env create {name}`, or let `cpu-pipeline run --create-envs` do so"
        )
    return Interpreter(str(here.python))


def create(name: str, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Make an environment, or finish what was half made; safe for several at once.

    Args:
        name: which.
        tell: called with a line now and then.

    Raises:
        BackendMissing: pip could not install the pins, or what it installed is broken.
    """
    here = get(name)
    root().mkdir(parents=True, exist_ok=True)
    with FileLock(here.folder.with_name(f"{here.folder.name}.lock")):
        if here.ready:
            return here.folder
        # What was half made is finished if it can be, and otherwise made again from nothing.
        for fresh in (False, True) if here.python.exists() else (True,):
            problems = _make(here, tell, fresh)
            if not problems:
                return here.folder
            tell(f"{name}: {problems[0]}")
        raise BackendMissing(f"the environment `{name}` could not be made: {problems[0]}; its log is {_log(here)}")


def _make(here: Environment, tell: Callable[[str], None], fresh: bool) -> list[str]:
    """Make one, over what is there or from nothing; return what is wrong with it."""
    if fresh or not here.python.exists():
        shutil.rmtree(here.folder, ignore_errors=True)
        tell(f"{here.name}: making a virtual environment in {here.folder}")
        if not _say(here, [sys.executable, "-I", "-m", "venv", str(here.folder)], "w"):
            return [_last(here, "venv failed")]
    tell(f"{here.name}: installing {len(here.pins)} packages with pip")
    asked = ["install", "--disable-pip-version-check", "--no-input", "-r", str(PINS / f"{here.name}.txt")]
    if not _say(here, [str(here.python), "-I", "-m", "pip", *asked], "a"):
        return [_last(here, "pip failed")]
    if problems := broken(here):
        return problems
    marker = here.folder / MARKER
    half = marker.with_suffix(".part")
    half.write_text(json.dumps({"name": here.name, "pins": here.digest, "python": sys.version.split()[0]}) + "\n")
    half.replace(marker)
    tell(f"{here.name}: ready")
    return []


def problems(name: str) -> list[str]:
    """Say everything that is wrong with an environment; nothing when it is whole and a worker starts in it."""
    here = get(name)
    if not here.ready:
        return [f"it is not here; make it with `cpu-pipeline env create {name}`"]
    problems = broken(here)
    command = [str(here.python), "-P", "-c", f"{LOCATE}; import cpu_pipeline.engine.worker.main", str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        problems.append(f"a worker does not start in it: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return problems


def broken(here: Environment) -> list[str]:
    """Compare what is installed with the pins, file by file."""
    places = sorted({str(path) for path in here.folder.glob("lib*/python*/site-packages")})
    places += [str(path) for path in here.folder.glob("Lib/site-packages")]
    found = {normal(d.metadata["Name"]): d for d in importlib.metadata.distributions(path=places)}
    problems = []
    for name, version in sorted(here.pins.items()):
        if name not in found:
            problems.append(f"{name} is not installed")
        # A build's own mark (`2.13.0+cpu`) says which machine code it is, not which version.
        elif found[name].version.partition("+")[0] != version:
            problems.append(f"{name} is {found[name].version}, not {version}")
        elif (lost := _lost(found[name])) is not None:
            problems.append(f"{name} lacks {lost}")
    return problems


def _lost(distribution: importlib.metadata.Distribution) -> str | None:
    """Name the first file of a distribution that is not there."""
    if distribution.files is None:
        return "its list of files"
    gone = (str(file) for file in distribution.files if file.suffix != ".pyc" and not Path(str(file.locate())).exists())
    return next(gone, None)


def remove(name: str) -> list[Path]:
    """Remove an environment, with what is left of it from other pins and other versions of Python."""
    get(name)
    gone = []
    for folder in sorted(root().glob(f"{name}-*-py*")):
        if folder.is_dir():
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                # The marker first: what is half removed is not whole.
                (folder / MARKER).unlink(missing_ok=True)
                shutil.rmtree(folder)
            gone.append(folder)
    return gone


def _say(here: Environment, command: Sequence[str], mode: str) -> bool:
    with _log(here).open(mode, encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode == 0


def _log(here: Environment) -> Path:
    return here.folder.with_name(f"{here.folder.name}.log")


def _last(here: Environment, what: str) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = [line for line in _log(here).read_text(errors="replace").splitlines() if line.startswith("ERROR")]
    return f"{what}: {lines[-1].removeprefix('ERROR: ')}" if lines else what


def _own_paths() -> list[str]:
    """List where we look for modules beyond what every process of this interpreter does: a clone, a plug-in."""
    standard = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places = [Path(p) for p in sys.path if p]
    return [str(p) for p in places if p not in standard and p.parent not in standard and p.suffix != ".zip"]
