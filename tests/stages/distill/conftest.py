"""Share students: checkpoints of other weights, and of other shapes, than those that are taught of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import pytest

from cpu_pipeline.core.artifact import Artifact


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    def give(task: str, **config: Any) -> Artifact:
        return Artifact("hf", models.make("bert", tmp_path_factory.mktemp("hf"), task, seed=5, **config), "", {})

    return give
