"""The crontab as Debian's own `crontab` reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from crons import crons
from hypothesis import given, settings
from scheduling import REMOTE
from suites.schedulers.conftest import Made, need

from cpu_pipeline.recipe.cron import parse_cron


def check(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([need("crontab", "cron"), "-n", "-"], input=text, text=True, capture_output=True)


@pytest.mark.parametrize("remote", [None, REMOTE])
def test_the_crontab_is_valid(remote: str | None, made: Made) -> None:
    [text] = made("cron", store_remote=remote, program=("cpu-pipeline",), store=Path("/srv/a 'b'")).values()
    done = check(text)
    assert done.returncode == 0, done.stderr


@settings(max_examples=100)
@given(crons())
def test_cron_takes_whatever_we_take(text: str) -> None:
    for cron in (parse_cron(text), parse_cron(text).off_minute("some-recipe")):
        assert check(f"{cron.text} true\n").returncode == 0, cron.text


@pytest.mark.parametrize(
    "line", ["5/15 * * * * true\n", "0 0 * * 8 true\n", f"* * * * * {'x' * 999}\n", "* * * * * no"]
)
def test_crontab_would_see_a_wrong_line(line: str) -> None:
    assert check(line).returncode == 1


def test_the_longest_line_is_what_we_take_it_for() -> None:
    from cpu_pipeline.refresh.schedulers.cron import LONGEST

    assert check(f"* * * * * {'x' * LONGEST}\n").returncode == 0
    assert "command too long" in check(f"* * * * * {'x' * (LONGEST + 1)}\n").stderr
