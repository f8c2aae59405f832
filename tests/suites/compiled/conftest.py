"""Compile tiny models once each: what a C++ compiler takes a quarter of a minute for, and plain pytest leaves out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import models
import pytest
from stages.conftest import checkpoint, job, out  # noqa: F401  # fixtures

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.compile.aoti import CompileAoti
from cpu_pipeline.stages.quantize.pt2e import QuantizePt2e
from cpu_pipeline.tasks.question_answering import QuestionAnswering

NAME, TASK = "question-answering", QuestionAnswering()
OPEN = {"hf": hf, "pt2": pt2}
Compiled = Callable[..., Artifact]


def job_of(isa: str | None, rows: Path) -> Job:
    """Build the job of a recipe with this target."""
    return Job(
        load=lambda artifact: OPEN[artifact.format].load(artifact.path, TASK, 1),
        timer=None,
        task=TASK,
        data={"calibration": rows},
        isa=host.TARGETS[isa] if isa else host.isa(),
    )


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    @cache
    def give(kind: str) -> Artifact:
        return Artifact("hf", models.make(kind, tmp_path_factory.mktemp("hf"), NAME), "", {})

    return give


@pytest.fixture(scope="session")
def compiled(source: Callable[[str], Artifact], tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Give what a stage compiled of a kind of model, made once, with the stage's facts."""

    @cache
    def give(stage: str, kind: str, isa: str | None = None, **options: Any) -> Artifact:
        into = tmp_path_factory.mktemp("pt2")
        rows = models.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", NAME, 12)
        made = {"compile.aoti": CompileAoti, "quantize.pt2e": QuantizePt2e}[stage](**options)
        facts = made.run({"model": source(kind)}, into, job_of(isa, rows))
        return Artifact("pt2", into, "", stored_facts(facts))

    return give
