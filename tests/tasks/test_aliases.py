"""Names that others have for our tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli
from project import write_model

from cpu_pipeline import api, tasks
from cpu_pipeline.engine.keys import walk

STEPS = "stages: [{id: float, use: export.onnx}]\n"


def test_every_alias_is_of_a_task_and_no_task() -> None:
    assert set(tasks.ALIASES.values()) <= set(tasks.names())
    assert not tasks.ALIASES.keys() & set(tasks.names())


@pytest.mark.parametrize(
    "written", ["sentiment-analysis", "{use: sequence-classification, with: {max_seq_length: 128}}"]
)
def test_an_alias_gives_the_same_plan_and_keys(tmp_path: Path, written: str) -> None:
    write_model(tmp_path / "model")
    seen = []
    for task in ("text-classification", written):
        path = tmp_path / "toy.yaml"
        path.write_text(f"model: {{folder: model}}\ntask: {task}\n{STEPS}")
        plan = api.plan(api.load_recipe(path))
        assert plan.context.task_name == "text-classification"
        seen.append([visit.keyed for visit in walk(plan, lambda *_: None)])
    assert seen[0] == seen[1] and seen[0][0] is not None


def test_transformers_knows_these_names() -> None:
    from transformers.pipelines import TASK_ALIASES

    for alias, name in TASK_ALIASES.items():
        if name in tasks.names():
            assert tasks.canonical(alias) == name


def test_commands_take_an_alias(cli: Cli) -> None:
    assert cli("tasks", "ner").out == cli("tasks", "token-classification").out
