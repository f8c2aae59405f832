"""Unattended: a real cron daemon runs the crontab we print, and a model whose branch moves is refreshed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from conftest import ROOT
from project import until
from safetensors.numpy import load_file, save_file
from suites.loopback.serving import SERVE, free_port

from cpu_pipeline.release import latest, lockfile, manifest

pytestmark = pytest.mark.loopback

REPO = "someone/small-classifier"
FIRST, SECOND = "1" * 40, "2" * 40
RECIPE = f"""\
about: A recipe that follows a branch, as often as cron can.
model: {{hub: {REPO}, revision: "{FIRST}"}}
task: text-classification
data:
  validation: {{file: validation.jsonl}}
stages:
  - {{id: float, use: export.onnx}}
  - {{id: accuracy, use: validate.accuracy, from: {{reference: model}}, with: {{max_drop: 0.05}}}}
refresh: {{follow: main, cron: "* * * * *"}}  # comments stay
"""
PATIENCE = 240.0
"""Seconds for cron's next minute, and a build."""


@pytest.fixture
def repos(tmp_path: Path) -> Path:
    """Two commits of one repository; the second differs by little."""
    first, second = (tmp_path / "repos" / "models" / REPO / commit for commit in (FIRST, SECOND))
    models.make("bert", first, "text-classification", seed=1)
    shutil.copytree(first, second)
    weights = load_file(second / "model.safetensors")
    bias = weights["classifier.bias"]
    (second / "model.safetensors").unlink()
    save_file({**weights, "classifier.bias": bias + np.asarray(1e-4, bias.dtype)}, second / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    return tmp_path / "repos"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "pro ject 100%"
    models.write_rows(path / "recipes" / "validation.jsonl", "text-classification", 120, seed=2)
    (path / "recipes" / "small.yaml").write_text(RECIPE)
    return path


@contextlib.contextmanager
def hub(port: int, repos: Path, head: str) -> Iterator[None]:
    """Serve repositories, the branch main of ours at `head`."""
    command = [sys.executable, str(SERVE), "--port", str(port), "--repos", str(repos), "--move", f"{REPO}={head}"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def cron(home: Path, crontab: str) -> Iterator[None]:
    """Run Debian's cron with this crontab alone, in a name space where it sees a spool of its own."""
    daemon = shutil.which("cron", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if os.geteuid() != 0 or daemon is None:
        pytest.fail("needs Debian's cron (apt-get install cron), and root for a spool of its own")
    for name in ("spool", "cron.d", "run"):
        (home / name).mkdir(parents=True)
    (home / "crontab").touch(mode=0o644)
    (home / "spool" / "root").touch(mode=0o600)
    (home / "spool" / "root").write_text(crontab, encoding="utf-8")
    places = {"spool": "/var/spool/cron/crontabs", "cron.d": "/etc/cron.d", "crontab": "/etc/crontab", "run": "/run"}
    mounts = " && ".join(f'mount --bind "$0"/{name} {place}' for name, place in places.items())
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with subprocess.Popen([*command, "/bin/sh", "-c", f"{mounts} && exec {daemon} -f", str(home)]) as process:
        try:
            time.sleep(1)
            assert process.poll() is None, "cron did not start"
            yield
        finally:
            process.kill()  # and with the name space everything that cron has started


def results(project: Path) -> list[dict[str, Any]]:
    """Return the JSON lines that refreshes wrote into their log."""
    log = project / "cpu-pipeline-refresh.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict) and "outcome" in one]


def outcomes(project: Path) -> list[str]:
    return [one["outcome"] for one in results(project)]


def test_cron_refreshes_a_recipe_when_its_branch_has_moved(project: Path, repos: Path, tmp_path: Path) -> None:
    port = free_port()
    made = subprocess.run(
        [sys.executable, "-m", "cpu_pipeline", "schedule", "--for", "cron", "--store", str(tmp_path / "store"),
         "--store-remote", str(tmp_path / "remote")],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True,
        check=True,
    ).stdout  # fmt: skip
    assert len(re.findall(r"^\* \* \* \* \* ", made, re.MULTILINE)) == 1
    ours = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    crontab = "".join(f'{name}="{value}"\n' for name, value in ours.items()) + made
    home = project / "artifacts" / "small"

    with cron(tmp_path / "cron", crontab):
        with hub(port, repos, FIRST):
            until(lambda: "promoted" in outcomes(project), PATIENCE)
            first = latest.in_service(home)
            assert first is not None and manifest.edited(first) == []
            assert lockfile.lock_path(project / "recipes" / "small.yaml").is_file()
            until(lambda: outcomes(project)[-1] == "fresh", PATIENCE)
        with hub(port, repos, SECOND):
            until(lambda: outcomes(project).count("promoted") == 2, PATIENCE)

    said = [one for one in results(project) if one["outcome"] == "promoted"][1]
    assert [(move["from"], move["to"]) for move in said["moved"]] == [(FIRST, SECOND)]
    second = latest.in_service(home)
    assert second is not None and second.name == said["version"] != first.name
    assert manifest.edited(second) == []
    assert (project / "recipes" / "small.yaml").read_text() == RECIPE.replace(FIRST, SECOND)
    assert list((tmp_path / "remote" / "actions").rglob("*.json"))
    # Whoever looks later finds all of it: nothing is stale, and history tells of each run.
    status = subprocess.run(
        [sys.executable, "-m", "cpu_pipeline", "status", "recipes/small.yaml", "--store", str(tmp_path / "store")],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True,
    )  # fmt: skip
    assert status.returncode == 0, status.stdout + status.stderr
