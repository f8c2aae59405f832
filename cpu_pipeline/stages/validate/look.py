"""Has the accuracy gate seen enough? Compares both sides on the rows predicted so far, at the level of this look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cpu_pipeline.stages._base import Facts, Inputs, Job
from cpu_pipeline.stages.predict import DECISION
from cpu_pipeline.stages.validate._accuracy_options import AccuracyOptions
from cpu_pipeline.stages.validate._compare import compared
from cpu_pipeline.stages.validate._gate import SIDES, task_of


class LookFacts(Facts):
    """What was decided."""

    decided: bool
    """Whether the rest of the rows need not be predicted."""


class ValidateLook(AccuracyOptions):
    """Say whether a look at the first part of the rows decides what the gate asks."""

    look: int = Field(ge=1)
    """Number of this look."""

    facts_model: ClassVar = LookFacts
    takes: ClassVar = dict.fromkeys(SIDES, frozenset({"predictions"}))
    internal: ClassVar = True
    version: ClassVar = 1
    # The decision hangs on the bounds.
    unkeyed: ClassVar = frozenset({"source", "expected_flips"})

    def gives(self) -> str:
        """Name the format of the output."""
        return "decision"

    def backends(self, formats: Mapping[str, str]) -> frozenset[str]:
        """Name no backend: predictions are compared."""
        return frozenset()

    def run(self, inputs: Inputs, out: Path, job: Job) -> Any:
        """Write whether the looks so far decide the allowed drop and every slice."""
        task = task_of(job, "accuracy")
        found = compared(task, inputs, job.data["validation"], self.cluster_column(task), self.looks())
        usual = next(iter(found.scores["candidate"].metrics))
        name = self.metric or usual
        decided = len(found.rows) >= self.min_rows and name in found.names and self._decides(found, name)
        (out / DECISION).write_text(json.dumps({"decided": decided}) + "\n", encoding="utf-8")
        return LookFacts(decided=decided)

    def _decides(self, found: Any, name: str) -> bool:
        look = found.look(min(self.look, len(found.ends)), [name], self.confidence)
        outcome = self.outcome_of(look.metrics[name])
        if outcome != "pass" or not self.divisions:
            return outcome != "inconclusive"
        sliced = {one.name: found.sliced(one, one.metric or name, self.confidence) for one in self.divisions}
        return all(verdict.outcome != "inconclusive" for verdict in self.judge_sliced(sliced))
