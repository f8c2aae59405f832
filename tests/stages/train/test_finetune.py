"""Fine-tuning learns, whatever the task; stopped and started again it ends in the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from pydantic import ValidationError

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.figures import Note, Table
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.train import _batches, _loop
from cpu_pipeline.stages.train._base import TrainingFacts, drawn
from cpu_pipeline.stages.train.finetune import TrainFinetune

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
TASKS = ["question-answering", "text-classification", "token-classification", "sentence-similarity"]


def rows_file(path: Path, task: str, count: int, seed: int = 0) -> Path:
    """Write rows whose label can be learned: of texts, whether `good` is among the words."""
    rows = models.rows(task, count, seed)
    if task == "text-classification":
        rows = [{**row, "text": ("good " if row["label"] else "bad ") * 3 + row["text"]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def finetune(job: Jobs, folder: Path, model: Artifact, task: str, **options: Any) -> tuple[Path, TrainingFacts]:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    data = {"training": rows_file(folder / "training.jsonl", task, 24)}
    data |= {"selection": rows_file(folder / "selection.jsonl", task, 8, seed=1)}
    given = {"learning_rate": 2e-3, "precision": "float32", "evaluations": 2, "batch_tokens": 256} | options
    facts = TrainFinetune(**given).run({"model": model}, out, job(task, data=data, scratch=scratch))
    return out, facts


@pytest.mark.parametrize("task", TASKS)
def test_learns_every_task_that_has_labels(job: Jobs, checkpoint: Built, tmp_path: Path, task: str) -> None:
    out, facts = finetune(job, tmp_path, checkpoint("bert", task), task, epochs=4)
    first, last = facts.curve[0].value, facts.curve[-1].value
    assert first is not None and last is not None and last < 0.9 * first
    assert facts.metric and facts.best in [point.step for point in facts.scores]
    best = max(point.value or 0 for point in facts.scores)
    assert next(p.value for p in facts.scores if p.step == facts.best) == best
    assert hf.load(out, job(task).task, 1)


class Stopped(Exception):
    pass


def test_stopped_and_started_again_ends_in_the_same_bytes(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    task = "text-classification"
    model = checkpoint("bert", task)
    options = {"max_steps": 9, "epochs": 9, "accumulate": 2, "evaluations": 3}
    whole, facts = finetune(job, tmp_path / "whole", model, task, **options, checkpoint_steps=1000)

    class Dying(TrainFinetune):
        def loss(self, course: Any, inputs: Any) -> Any:
            calls.append(1)
            if len(calls) == 13:
                raise Stopped
            return super().loss(course, inputs)

    calls: list[int] = []
    home = tmp_path / "stopped"
    (home / "out").mkdir(parents=True)
    (home / "scratch").mkdir()
    data = {"training": rows_file(home / "training.jsonl", task, 24)}
    data |= {"selection": rows_file(home / "selection.jsonl", task, 8, seed=1)}
    given = {"learning_rate": 2e-3, "precision": "float32", "batch_tokens": 256, **options, "checkpoint_steps": 2}
    with pytest.raises(Stopped):
        Dying(**given).run({"model": model}, home / "out", job(task, data=data, scratch=home / "scratch"))
    assert (home / "scratch" / _loop.STATE).is_file()
    (home / "out").rmdir()
    resumed, again = finetune(job, home, model, task, **options, checkpoint_steps=2)
    assert digest_tree(resumed) == digest_tree(whole)
    assert again == facts
    assert facts.steps == 9 and facts.best


def test_another_seed_learns_in_another_order(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    model = checkpoint("bert", "text-classification")
    found = {
        digest_tree(finetune(job, tmp_path / str(seed), model, "text-classification", max_steps=2, seed=seed)[0])
        for seed in (0, 1)
    }
    assert len(found) == 2


def test_a_base_model_gets_a_head_with_names(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    base = checkpoint("bert", "sentence-similarity")
    options = {"new_head": True, "labels": ("NO", "YES"), "max_steps": 2}
    out, _ = finetune(job, tmp_path, base, "text-classification", **options)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "NO", "1": "YES"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert hf.load(out, job("text-classification").task, 1)


def test_the_best_checkpoint_wins_not_the_last(tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.7])
    weight = torch.nn.Linear(2, 1)
    seen = []

    def score() -> float:
        seen.append(weight.weight.detach().clone())
        return next(scores)

    course = _loop.Course([[[0]]] * 4, [1], 0.1, 0.0, 0.0, 0, True, 10, 2)
    history = _loop.train(weight, course, lambda _: weight(torch.ones(1, 2)).sum(), score, tmp_path, lambda *_: None)
    assert history.best == 2 and torch.equal(weight.weight, seen[1])


def test_batches_hold_every_target_once_under_the_budget() -> None:
    sizes = [3, 50, 7, 7, 12, 30, 1, 9, 64, 2]
    steps = _batches.plan(sizes, budget=64, accumulate=2, epochs=1, most=None, seed=3)
    batches = [batch for step in steps for batch in step]
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    assert all(len(batch) * max(sizes[i] for i in batch) <= 64 for batch in batches)
    assert steps == _batches.plan(sizes, budget=64, accumulate=2, epochs=1, most=None, seed=3)
    two = _batches.plan(sizes, budget=64, accumulate=2, epochs=2, most=None, seed=3)
    assert two[: len(steps)] == steps and two[len(steps) :] != steps


def test_the_rate_rises_and_falls() -> None:
    rates = [_loop._factor(step, 20, 0.1) for step in range(20)]
    assert rates[:2] == [0.5, 1.0] and rates[2] == 1.0
    assert rates[-1] == pytest.approx(1 / 18)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_rows_without_a_label_are_refused(job: Jobs, checkpoint: Built, tmp_path: Path) -> None:
    data = {"training": tmp_path / "rows.jsonl"}
    data["training"].write_text('{"id": "1", "text": "a"}\n', encoding="utf-8")
    made = job("text-classification", data=data, scratch=tmp_path)
    with pytest.raises(RecipeError, match="not one row has something to learn"):
        TrainFinetune().run({"model": checkpoint("bert", "text-classification")}, tmp_path, made)


def test_no_gpu_is_an_error_that_says_so(
    job: Jobs, checkpoint: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendMissing, match="no GPU"):
        TrainFinetune(device="cuda").run(
            {"model": checkpoint("bert", "text-classification")}, tmp_path, job("text-classification")
        )


def test_labels_need_a_new_head() -> None:
    with pytest.raises(ValidationError, match="new_head"):
        TrainFinetune(labels=("a",))


def test_the_report_draws_the_loss_and_lists_the_scores() -> None:
    facts = TrainingFacts.model_validate(
        {"rows": 3, "targets": 3, "steps": 4, "precision": "float32", "metric": "f1", "best": 4, "bytes": 1}
        | {"curve": [{"step": 2, "value": 2.0}, {"step": 4, "value": 1.0}], "scores": [{"step": 4, "value": 0.5}]}
    )
    note, table = TrainFinetune().details(facts)
    assert isinstance(note, Note) and note.text.endswith("from 2.000 to 1.000: █▁")
    assert isinstance(table, Table) and list(table.rows) == ["step 4 (kept)"]
    assert drawn([0.0, 0.5, 1.0]) == "▁▅█"
