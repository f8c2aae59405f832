"""kill -9 in the middle of a training, then the same command: the same bytes as without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import pytest

from cpu_pipeline.core.artifact import digest_tree

STEPS = 60
RECIPE = """
model: {folder: model}
task: text-classification
data:
  training: {file: training.jsonl}
  selection: {file: selection.jsonl}
stages:
  - id: tuned
    use: train.finetune
    with: {epochs: 50, max_steps: STEPS, learning_rate: 0.001, checkpoint_steps: 3, batch_tokens: 512, evaluations: 3}
unchecked: {tuned: its bytes are compared}
"""


def project(folder: Path) -> Path:
    folder.mkdir()
    models.make("bert", folder / "model", "text-classification", num_hidden_layers=4)
    for number, role in enumerate(("training", "selection")):
        rows = models.rows("text-classification", 200 if role == "training" else 16, number)
        rows = [{**row, "text": ("good " if row["label"] else "bad ") + row["text"]} for row in rows]
        (folder / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "tune.yaml").write_text(RECIPE.replace("STEPS", str(STEPS)), encoding="utf-8")
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cpu_pipeline", "run", "tune.yaml"]
    env = {**os.environ, "CPU_PIPELINE_STORE": str(folder / "store")}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(folder: Path) -> str:
    running = start(folder)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said.decode()
    return digest_tree(folder / "artifacts" / "tune" / "latest" / "tuned")


@pytest.mark.parametrize("checkpoints", [1, 4])
def test_killed_and_started_again_gives_the_same_bytes(tmp_path: Path, checkpoints: int) -> None:
    whole = finish(project(tmp_path / "whole"))
    killed = project(tmp_path / "killed")
    running = start(killed)
    seen: set[int] = set()
    deadline = time.monotonic() + 200
    while len(seen) < checkpoints and time.monotonic() < deadline and running.poll() is None:
        seen |= {file.stat().st_ino for file in killed.rglob("state.pt")}
        time.sleep(0.005)
    assert running.poll() is None and len(seen) >= checkpoints, "it ended before it was killed"
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (killed / "artifacts" / "tune" / "latest").exists()
    assert finish(killed) == whole


def test_a_recipe_can_begin_at_a_base_model(tmp_path: Path) -> None:
    folder = project(tmp_path / "base")
    shutil.rmtree(folder / "model")
    models.make("bert", folder / "model", "sentence-similarity")
    recipe = RECIPE.replace("STEPS", "4").replace("epochs: 50", "epochs: 50, new_head: true, labels: [NO, YES]")
    (folder / "tune.yaml").write_text(recipe, encoding="utf-8")
    finish(folder)
    config = json.loads((folder / "artifacts/tune/latest/tuned/config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "NO", "1": "YES"}
