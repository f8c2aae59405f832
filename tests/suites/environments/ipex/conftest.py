"""The ipex environment, made where it is not, and tiny projects to build in it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import models
import pytest

from cpu_pipeline import api
from cpu_pipeline.core.events import Event
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import Environment

Build = Callable[..., api.Outcome]


@pytest.fixture(scope="session", autouse=True)
def ipex() -> Environment:
    """Have the environment: some gigabytes and two minutes where it is not here yet."""
    environments.create("ipex", print)
    return environments.get("ipex")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build stages (YAML) on a tiny checkpoint of a kind and task, into a store of its own."""

    def run(kind: str, task: str, stages: str, events: list[Event]) -> api.Outcome:
        project = tmp_path_factory.mktemp("project")
        models.make(kind, project / "model", task)
        models.write_rows(project / "validation.jsonl", task, 100)
        head = f"""\
            model: {{folder: model}}
            task: {task}
            data: {{validation: {{file: validation.jsonl}}}}
            target: {{threads: 1}}
            stages:
            """
        recipe = project / "r.yaml"
        recipe.write_text(textwrap.dedent(head) + textwrap.dedent(stages), encoding="utf-8")
        plan = api.plan(api.load_recipe(recipe))
        return api.build(plan, project / "store", project / "out", tell=events.append)

    return run


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Make a tiny checkpoint of a kind and task."""
    return lambda kind, task: models.make(kind, tmp_path_factory.mktemp(kind), task)
