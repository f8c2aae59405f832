"""Units as systemd itself reads them: valid, split into the words that were meant, firing when cron would."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest
from crons import crons
from hypothesis import given, settings
from scheduling import ODD, REMOTE
from suites.schedulers.conftest import Made, need

from cpu_pipeline.recipe.cron import Cron, parse_cron

FROM = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 20


def next_times(calendars: Sequence[str]) -> list[datetime]:
    """Ask systemd for the next times of timers with these calendars: all of them together."""
    found: set[datetime] = set()
    for calendar in calendars:
        done = subprocess.run(
            [need("systemd-analyze", "systemd"), "calendar", f"--iterations={COUNT}",
             "--base-time=2026-01-01 00:00:00 UTC", calendar],
            env={"TZ": "UTC", "PATH": os.environ["PATH"]}, text=True, capture_output=True, check=True,
        )  # fmt: skip
        times = re.findall(r"(?:Next elapse|Iter\. #\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)
        assert times, done.stdout
        found |= {datetime.fromisoformat(time).replace(tzinfo=UTC) for time in times}
    return sorted(found)[:COUNT]


def check(cron: Cron) -> None:
    times = next_times(cron.calendars())
    assert times == list(islice(cron.fires(FROM), len(times)))
    assert len(times) == COUNT


@settings(max_examples=150)
@given(crons())
def test_calendars_fire_when_cron_does(text: str) -> None:
    check(parse_cron(text))


@pytest.mark.parametrize("text", ["17 3 29 2 *", "17 3 31 * *", "17 3 13 * fri", "0 0 1 1 0-6", "*/7 */5 */2 */5 *"])
def test_dates_that_do_not_come_every_month(text: str) -> None:
    check(parse_cron(text))
    check(parse_cron(text).off_minute("some-recipe"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may parse_cron, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="units-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def write(units: dict[str, str], folder: Path) -> list[str]:
    for name, text in units.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name) for name in units]


def verify(paths: Sequence[str]) -> str:
    done = subprocess.run([need("systemd-analyze", "systemd"), "verify", *paths], text=True, capture_output=True)
    return f"{done.stdout}{done.stderr}{done.returncode or ''}"


@pytest.mark.parametrize("remote", [None, REMOTE])
def test_units_are_valid(remote: str | None, made: Made, folder: Path) -> None:
    paths = write(made("systemd", store_remote=remote, store=Path("/srv/a b")), folder)
    assert verify(paths) == ""


@pytest.mark.parametrize(
    ("what", "instead"),
    [("OnCalendar=", "OnCalendar=31 o'clock "), ("Type=oneshot", "Type=once"), ("Nice=10", "Nise=1")],
)
def test_verify_would_see_a_wrong_unit(what: str, instead: str, made: Made, folder: Path) -> None:
    units = {name: text.replace(what, instead) for name, text in made("systemd").items()}
    assert verify(write(units, folder)) != ""


def test_hardening_is_in_force(made: Made, folder: Path) -> None:
    write(made("systemd"), folder)
    service = folder / "cpu-pipeline-refresh-alpha.service"
    done = subprocess.run(
        [need("systemd-analyze", "systemd"), "security", "--offline=true", "--threshold=50", str(service)],
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_reads_the_words_that_were_meant(made: Made, project: Path, folder: Path) -> None:
    write(made("systemd", store=Path('/srv/a $b% "c"')), folder)
    for target in ("basic", "timers", "paths", "sockets", "shutdown"):
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")
    said = load(folder, "cpu-pipeline-refresh-alpha.service")
    recipes = ["recipes/alpha.yaml", f"recipes/{ODD}.yaml".replace("$", "$$")]
    named = [word for recipe in recipes for word in ("--recipe", recipe)]
    lines = [words(line) for line in re.findall(r"Command Line: (.*)", said)]
    program = lines[0][: len(lines[0]) - len(["store", "pull", REMOTE, *named])]
    assert lines == [
        [*program, "store", "pull", REMOTE, *named],
        [*program, "refresh", *recipes, "--keep-going", "--json", "--store-remote", REMOTE],
        [*program, "store", "push", REMOTE, *named],
    ]
    assert f"WorkingDirectory: {project}\n" in said
    assert 'Environment: CPU_PIPELINE_STORE=/srv/a $b% "c"\n' in said


def load(folder: Path, unit: str) -> str:
    """Let systemd load a unit as a user's manager would, and show what it made of it; nothing is started."""
    command = [need("systemd", "systemd") if shutil.which("systemd") else "/lib/systemd/systemd"]
    command += ["--test", "--user", f"--unit={unit}"]
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    if getpass.getuser() == "root":
        shutil.chown(runtime, "nobody")
        command = [need("runuser", "util-linux"), "-u", "nobody", "--", *command]
    env = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": str(folder), "XDG_RUNTIME_DIR": str(runtime),
           "LC_ALL": "C.UTF-8"}  # fmt: skip
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=60)
    shown = done.stdout + done.stderr
    begin = shown.index(f"Unit {unit}:")
    end = shown.find("-> Unit ", begin)
    return shown[begin : end if end >= 0 else None]


def words(line: str) -> list[str]:
    """Read a command line as systemd shows it, quoted for a shell; `$$` becomes `$` only when it is run."""
    done = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {line}"], text=True, capture_output=True, check=True)
    return done.stdout.split("\0")[:-1]
