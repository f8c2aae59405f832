"""A model whose branch moves: a whole life of a recipe, from its lock to its rollback, through the loopback Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from suites.loopback.serving import SERVE, free_port

from cpu_pipeline.release import latest, lockfile, manifest

pytestmark = pytest.mark.loopback

REPO = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
FIRST = "714eb0fa89d2f80546fda750413ed43d93601a13"
BETTER, POISONED = "a" * 40, "f" * 40
RECIPE = f"""\
about: A recipe that follows a branch.
model: {{hub: {REPO}, revision: "{FIRST}"}}
task: text-classification
data:
  validation:
    hub: stanfordnlp/sst2
    revision: "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"
    split: validation
    columns: {{text: sentence}}
stages:
  - {{id: float, use: export.onnx}}
  - {{id: int8, use: quantize.onnx, with: {{per_channel: true}}}}
  - {{id: accuracy, use: validate.accuracy, from: {{reference: model}}, with: {{max_drop: 0.02}}}}
refresh: {{follow: main, keep: 3}}
"""


class Machine:
    """A machine with a store, a user's folder and a clone of its own, and a Hub whose branch stands somewhere."""

    def __init__(self, home: Path, port: int, repos: Path) -> None:
        self.home, self.port, self.repos, self.head = home, port, repos, FIRST
        home.mkdir()

    @property
    def out(self) -> Path:
        return self.home / "artifacts"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        hub = [str(SERVE), "--port", str(self.port), "--repos", str(self.repos), "--move", f"{REPO}={self.head}"]
        return subprocess.run(
            [sys.executable, *hub, "--", sys.executable, "-m", "cpu_pipeline", *arguments],
            cwd=self.home, env={**os.environ, "HUB_HOME": str(self.home), "HOME": str(self.home / "user")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def ok(self, *arguments: str) -> str:
        ended = self.call(*arguments)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    def refresh(self, code: int = 0) -> tuple[dict[str, Any], str]:
        ended = self.call("refresh", "recipes/sst2.yaml")
        assert ended.returncode == code, ended.stderr[-3000:]
        [line] = ended.stdout.splitlines()
        return json.loads(line), ended.stderr

    @property
    def recipe(self) -> Path:
        return self.home / "recipes" / "sst2.yaml"

    @property
    def in_service(self) -> str:
        version = latest.in_service(self.out / "sst2")
        assert version is not None
        assert manifest.edited(version) == []
        return version.name


def file_commit(repos: Path, commit: str, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """File a newer commit of the repository beside the first."""
    first = SERVE.parent / "repos" / "models" / REPO / FIRST
    place = repos / "models" / REPO / commit
    shutil.copytree(first, place)
    weights = load_file(place / "model.safetensors")
    change(weights)
    (place / "model.safetensors").unlink()
    save_file(weights, place / "model.safetensors", {"format": "pt"})


def better(weights: dict[str, np.ndarray]) -> None:
    weights["classifier.bias"] = weights["classifier.bias"] + np.asarray(0.001, weights["classifier.bias"].dtype)


def poisoned(weights: dict[str, np.ndarray]) -> None:
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = -weights[name]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("repos")
    file_commit(made, BETTER, better)
    file_commit(made, POISONED, poisoned)
    return made


def test_a_recipe_is_locked_rebuilt_refreshed_refused_and_rolled_back(tmp_path: Path, repos: Path) -> None:
    port = free_port()
    here = Machine(tmp_path / "here", port, repos)
    here.recipe.parent.mkdir()
    here.recipe.write_text(RECIPE)

    assert "wrote" in here.ok("lock", "recipes/sst2.yaml")
    here.ok("run", "--locked", "recipes/sst2.yaml")
    rebuilt = here.ok("run", "--rebuild", "recipes/sst2.yaml")
    assert {line.split()[0] for line in rebuilt.splitlines()} == {"identical"}
    here.ok("verify", "artifacts/sst2/latest")
    first = here.in_service
    said, _ = here.refresh()
    assert said["outcome"] == "fresh"

    here.head = BETTER
    here.ok("run", "recipes/sst2.yaml")
    assert here.recipe.read_text() == RECIPE, "only lock and refresh move a revision"
    said, told = here.refresh()
    assert (said["outcome"], said["version_before"], said["version"]) == ("promoted", first, here.in_service)
    assert said["moved"] == [{"what": "model", "repo": REPO, "branch": "main", "from": FIRST, "to": BETTER}]
    assert "accuracy@service: accuracy: 0." in told
    events = [line.split() for line in told.splitlines()]
    built = {words[1] for words in events if words[0] == "building"}
    assert built >= {"model:files", "model", "float", "int8", "predict:int8", "accuracy", "accuracy@service"}
    assert not any(name.startswith("data") for name in built), "the rows have not moved"
    assert here.recipe.read_text() == RECIPE.replace(FIRST, BETTER)
    held = lockfile.read_lock(here.recipe.with_suffix(".lock"))
    assert held["sources"]["model:files"]["from"] == f"{REPO} at {BETTER}"
    second = here.in_service
    here.ok("run", "--locked", "recipes/sst2.yaml")

    here.head = POISONED
    text = here.recipe.with_suffix(".lock").read_bytes()
    said, told = here.refresh(3)
    assert (said["outcome"], said["version"], here.in_service) == ("refused", second, second)
    assert f"main of {REPO} advanced: {BETTER[:12]} → {POISONED[:12]}" in told
    assert any(says.startswith("accuracy@service: accuracy 0.") for says in said["failed"])
    assert not any(says.startswith("accuracy: ") for says in said["failed"]), "int8 is as good as its poisoned original"
    assert any(says.startswith("accuracy: 0.8") for says in said["changes"]["accuracy@service"])
    assert here.recipe.read_text() == RECIPE.replace(FIRST, BETTER)
    assert here.recipe.with_suffix(".lock").read_bytes() == text
    assert here.call("status", "recipes/sst2.yaml").returncode == 5

    here.head = BETTER
    here.ok("rollback", "sst2")
    assert here.in_service == first
    said, _ = here.refresh()
    assert (said["outcome"], here.in_service) == ("held", first)
    here.ok("rollback", "sst2", second)
    said, _ = here.refresh()
    assert (said["outcome"], here.in_service) == ("fresh", second)
    here.ok("status", "recipes/sst2.yaml")

    remote = str(tmp_path / "remote")
    here.ok("store", "push", remote, "--recipe", "recipes/sst2.yaml")
    there = Machine(tmp_path / "there", port, repos)
    shutil.copytree(here.recipe.parent, there.recipe.parent)
    there.head = BETTER
    there.ok("store", "pull", remote, "--recipe", "recipes/sst2.yaml")
    said, _ = there.refresh()
    assert (said["built"], said["version"], there.in_service) == (0, second, second)
    assert said["causes"] == ["nothing is in service in artifacts/sst2"]

    there.recipe.write_text(RECIPE)
    there.ok("lock", "recipes/sst2.yaml")
    assert there.recipe.read_text() == RECIPE, "a lock alone moves nothing"
    moved = there.ok("lock", "--upgrade", "recipes/sst2.yaml")
    assert f"advanced  model: main of {REPO} advanced: {FIRST[:12]} → {BETTER[:12]}" in moved
    assert there.recipe.read_text() == RECIPE.replace(FIRST, BETTER)
    there.ok("lock", "--check", "recipes/sst2.yaml")
