"""`init` writes a recipe that is ready to run, and `pin` tells commits, both from what the Hub says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from suites.loopback.serving import pipeline

pytestmark = pytest.mark.loopback

SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


@pytest.mark.parametrize(
    ("model", "data", "task"),
    [
        (SST2, "stanfordnlp/sst2", "text-classification"),
        ("sentence-transformers/all-MiniLM-L6-v2", "mteb/stsbenchmark-sts", "sentence-similarity"),
        ("deepset/roberta-base-squad2", "rajpurkar/squad_v2", "question-answering"),
    ],
)
def test_proposes_task_columns_and_commits_that_plan(
    home: Path, tmp_path: Path, model: str, data: str, task: str
) -> None:
    made = pipeline(home, "init", model, "--data", data, "--out", "recipes/new.yaml", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "recipes" / "new.yaml").read_text()
    written = yaml.safe_load(text)["task"]
    assert (written["use"] if isinstance(written, dict) else written) == task
    assert text.count("revision:") == 2
    if model == SST2:
        assert "columns: {text: sentence}" in text
    planned = pipeline(home, "plan", "recipes/new.yaml", "--json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    rows = pipeline(home, "run", "recipes/new.yaml", "--until", "data.validation", "--json", cwd=tmp_path)
    assert rows.returncode == 0, rows.stderr
    assert json.loads(rows.stdout)["steps"]["data.validation"]["facts"]["rows"] > 800


def test_never_overwrites_by_itself(home: Path, tmp_path: Path) -> None:
    words = ("init", SST2, "--data", "stanfordnlp/sst2", "--out", "new.yaml")
    assert pipeline(home, *words, cwd=tmp_path).returncode == 0
    (tmp_path / "new.yaml").write_text("mine")
    again = pipeline(home, *words, cwd=tmp_path)
    assert again.returncode == 2 and "--force" in again.stderr
    assert (tmp_path / "new.yaml").read_text() == "mine"


def test_says_which_option_tells_what_it_cannot(home: Path, tmp_path: Path) -> None:
    made = pipeline(home, "init", SST2, cwd=tmp_path)
    assert made.returncode == 2 and "--data" in made.stderr


def test_pin_prints_a_full_commit(home: Path) -> None:
    assert pipeline(home, "pin", SST2).stdout.strip() == "714eb0fa89d2f80546fda750413ed43d93601a13"
    assert pipeline(home, "pin", "nobody/nothing").returncode == 2
