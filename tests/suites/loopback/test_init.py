"""`init` writes a recipe that is ready to run, and `pin` tells commits, both from what the Hub says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.loopback

SERVE = Path(__file__).parents[4] / "shared" / "hub" / "serve.py"
SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SERVE), "--", sys.executable, "-m", "cpu_pipeline", *words],
        env={**os.environ, "HUB_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("model", "data", "task"),
    [
        (SST2, "stanfordnlp/sst2", "text-classification"),
        ("sentence-transformers/all-MiniLM-L6-v2", "mteb/stsbenchmark-sts", "sentence-similarity"),
        ("deepset/roberta-base-squad2", "rajpurkar/squad_v2", "question-answering"),
    ],
)
def test_proposes_task_columns_and_commits_that_plan(tmp_path: Path, model: str, data: str, task: str) -> None:
    made = command(tmp_path, "init", model, "--data", data, "--out", "recipes/new.yaml")
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "recipes" / "new.yaml").read_text()
    assert f"use: {task}" in text
    assert text.count("revision:") == 2
    if model == SST2:
        assert "columns: {text: sentence}" in text
    planned = command(tmp_path, "plan", "recipes/new.yaml", "--json")
    assert planned.returncode == 0, planned.stderr
    rows = command(tmp_path, "run", "recipes/new.yaml", "--until", "data.validation", "--json")
    assert rows.returncode == 0, rows.stderr
    assert json.loads(rows.stdout)["steps"]["data.validation"]["facts"]["rows"] > 800


def test_never_overwrites_by_itself(tmp_path: Path) -> None:
    words = ("init", SST2, "--data", "stanfordnlp/sst2", "--out", "new.yaml")
    assert command(tmp_path, *words).returncode == 0
    (tmp_path / "new.yaml").write_text("mine")
    again = command(tmp_path, *words)
    assert again.returncode == 2 and "--force" in again.stderr
    assert (tmp_path / "new.yaml").read_text() == "mine"


def test_says_which_option_tells_what_it_cannot(tmp_path: Path) -> None:
    made = command(tmp_path, "init", SST2)
    assert made.returncode == 2 and "--data" in made.stderr


def test_pin_prints_a_full_commit(tmp_path: Path) -> None:
    assert command(tmp_path, "pin", SST2).stdout.strip() == "714eb0fa89d2f80546fda750413ed43d93601a13"
    assert command(tmp_path, "pin", "nobody/nothing").returncode == 2
