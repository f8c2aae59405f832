"""Let a tiny student learn of a tiny teacher, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.distill.teacher import DistillTeacher
from cpu_pipeline.stages.train._base import TrainingFacts

Jobs = Callable[..., Job]
OPTIONS: dict[str, Any] = {"epochs": 12, "learning_rate": 3e-3, "precision": "float32", "batch_tokens": 512}


def distil(
    job: Jobs,
    teacher: Artifact,
    student: Artifact,
    folder: Path,
    task: str,
    stage: Any,
    *,
    labels: bool = True,
    **keep: Any,
) -> tuple[Path, TrainingFacts]:
    rows = models.rows(task, 16)
    gone = () if labels else ("label", "answers", "tags", "score")
    rows = [{key: value for key, value in row.items() if key not in gone} for row in rows]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("taught", "out", "scratch"):
        (folder / name).mkdir(parents=True)
    made = job(task, data={"training": file}, scratch=folder / "scratch")
    DistillTeacher(**keep).run({"teacher": teacher}, folder / "taught", made)
    inputs = {"model": student, "teacher": Artifact("teacher-outputs", folder / "taught", "", {})}
    return folder / "out", stage.run(inputs, folder / "out", made)
