"""This project's own workflows, as actionlint and shellcheck read them; the scripts of .ci/ as shellcheck does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from suites.schedulers.conftest import Made, need
from suites.schedulers.test_github_actions import actionlint

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = [
    path
    for path in sorted((ROOT / ".ci").iterdir())
    if path.is_file() and "bash" in path.read_text().partition("\n")[0]
]
USES = re.compile(r"uses: (\S+)@([0-9a-f]{40}) # (v[0-9.]+)")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    assert actionlint(path.read_text(encoding="utf-8")) == []


def test_actions_are_those_of_the_workflows_that_we_print(made: Made) -> None:
    """By commit, and by the same one: a tag can be moved, and one list is kept up to date."""
    [printed] = made("github-actions").values()
    known = {name: (commit, tag) for name, commit, tag in USES.findall(printed)}
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        found = USES.findall(text)
        assert len(found) == text.count("uses:") > 0, f"{path.name}: an action without a commit"
        assert {name: (commit, tag) for name, commit, tag in found}.items() <= known.items()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    command = [need("shellcheck", "shellcheck"), str(path)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
