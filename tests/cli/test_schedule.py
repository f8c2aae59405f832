"""`cpu-pipeline schedule`, and what `check` says of a schedule that is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import Cli
from scheduling import REMOTE, write_project, write_recipe


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.delenv("CPU_PIPELINE_STORE", raising=False)
    return path


@pytest.mark.parametrize("kind", ["github-actions", "cron", "systemd", "kubernetes"])
def test_every_recipe_with_a_schedule_is_in_the_file(kind: str, project: Path, cli: Cli) -> None:
    write_project(project)
    said = cli("schedule", "--for", kind, "--image", "some/image")
    assert said.code == 0 and said.err == ""
    assert "recipes/alpha.yaml" in said.out and "recipes/weekly.yaml" in said.out
    assert "by-hand" not in said.out and "plain" not in said.out
    assert ("UTC" in said.out) and f"schedule --for {kind}" in said.out


def test_named_recipes_alone(project: Path, cli: Cli) -> None:
    write_project(project)
    said = cli("schedule", "--for", "github-actions", "recipes/weekly.yaml", "--install", "pip install 'mine[build]'",
               "--store-remote", REMOTE, "--out", "shipped")  # fmt: skip
    [job] = yaml.safe_load(said.out)["jobs"].items()
    assert job[0] == "cpu-pipeline-refresh" and "if" not in job[1]
    scripts = [step["run"] for step in job[1]["steps"] if "run" in step]
    assert scripts[0] == "pip install 'mine[build]'\npython -m pip install s3fs"
    assert any("--out shipped" in script for script in scripts)


def test_another_repository_says_what_is_installed(project: Path, cli: Cli) -> None:
    """The file is for a repository of recipes, which is no clone of this one: nothing is guessed."""
    write_project(project)
    said = cli("schedule", "--for", "github-actions", "recipes/weekly.yaml")
    [job] = yaml.safe_load(said.out)["jobs"].values()
    [install] = [step for step in job["steps"] if step.get("name") == "Install"]
    assert install["env"]["REQUIREMENT"] == "${{ vars.CPU_PIPELINE_REQUIREMENT }}"
    script = install["run"]
    assert "pip install '.[build]'" not in script

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        fake = project / "bin"
        fake.mkdir(exist_ok=True)
        (fake / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (fake / "python").chmod(0o755)
        path = f"{fake}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env={"CONSTRAINTS": "", "PATH": path, **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    missing = run(REQUIREMENT="")
    assert missing.returncode == 2 and "Set the variable CPU_PIPELINE_REQUIREMENT" in missing.stdout
    assert run(REQUIREMENT="wheels/a b.whl[build]").stdout.splitlines() == [
        "-m",
        "pip",
        "install",
        "wheels/a b.whl[build]",
    ]
    assert "--constraint\npins.txt\n" in run(REQUIREMENT="x", CONSTRAINTS="pins.txt").stdout


def test_files_are_written(project: Path, cli: Cli) -> None:
    write_project(project)
    said = cli("schedule", "--for", "systemd", "--write", "units", "--store", "kept")
    assert said.code == 0
    there = {path.name for path in (project / "units").iterdir()}
    assert {line.split("/")[-1] for line in said.out.splitlines()} == there and len(there) == 8
    service = (project / "units" / "cpu-pipeline-refresh-alpha.service").read_text()
    assert f"CPU_PIPELINE_STORE={project / 'kept'}" in service
    printed = cli("schedule", "--for", "systemd", "--store", "kept").out
    assert "# ==> cpu-pipeline-refresh-alpha.service\n" + service in printed


def test_none_has_a_schedule(project: Path, cli: Cli) -> None:
    for _ in range(2):
        said = cli("schedule", "--for", "cron")
        assert said.code == 2 and said.out == ""
        assert "no recipe has a schedule; write `refresh: {cron:" in said.err
        write_recipe(project, "by-hand", "{follow: main}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--for", "jenkins"], "is not one of github-actions, cron, systemd, kubernetes"),
        ([], "Missing option"),
        (["--for", "cron", "recipes/by-hand.yaml"], "recipes/by-hand.yaml: has no schedule"),
        (["--for", "cron", "recipes/other.yaml"], "no such file"),
        (["--for", "cron", "quickstart"], "has no schedule"),
        (["--for", "cron", "../outside/recipes/far.yaml"], "lies outside"),
        (["--for", "cron", "--out", "/srv"], "lies outside"),
        (["--for", "cron", "recipes/alpha.yaml", "sub/recipes/alpha.yaml"], "has the same name"),
        (["--for", "kubernetes"], "--image"),
        (["--for", "kubernetes", "--image", "some/image", "--store", "kept"], "--store: a file for kubernetes has"),
        (["--for", "github-actions", "--store", "kept"], "--store: a file for github-actions has a place of its own"),
        (["--for", "cron", "--store-remote", "s3://key:hidden@bucket"], "no place for a user, a password"),
        (["--for", "systemd", "--write", "recipes/alpha.yaml"], "is not a directory"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], says: str, project: Path, cli: Cli) -> None:
    write_project(project)
    for folder in (project / "sub", project.parent / "outside"):
        (folder / "recipes").mkdir(parents=True, exist_ok=True)
    write_recipe(project / "sub", "alpha", '{cron: "9 9 * * *"}')
    write_recipe(project.parent / "outside", "far", '{cron: "9 9 * * *"}')
    said = cli("schedule", *arguments)
    assert said.code == 2 and said.out == ""
    assert says in said.err.replace("\n", " ") and "hidden" not in said.err and "Traceback" not in said.err


def test_a_name_that_no_file_of_lines_can_hold_is_refused(project: Path, cli: Cli) -> None:
    write_recipe(project, "two\nlines", '{cron: "9 9 * * *"}')
    said = cli("schedule", "--for", "cron")
    assert said.code == 2 and "holds a character that cannot be printed" in said.err


@pytest.mark.parametrize("command", ["check", "plan"])
@pytest.mark.parametrize(
    ("cron", "says"),
    [("0 3 * *", "`0 3 * *` is not five fields"), ("61 3 * * *", "its minute is out of range"), ("@weekly", "five")],
)
def test_a_wrong_schedule_is_found_with_its_line(command: str, cron: str, says: str, project: Path, cli: Cli) -> None:
    path = write_recipe(project, "wrong", f'{{follow: main, cron: "{cron}"}}')
    said = cli(command, path)
    assert said.code == 2
    assert f"{path}:5:25: refresh.cron: " in said.err and says in said.err
