"""The accuracy that a quantized model has to keep, and how a model is held against it on `selection` rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Progress
from cpu_pipeline.stages.quantize._damage import BATCH
from cpu_pipeline.tasks._base import Prediction

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Session
    from cpu_pipeline.tasks._base import Row, Task

ROUNDING = 1e-9
"""What sums of fractions may be off by."""


class Accuracy(BaseModel):
    """The bound, and how much work it is worth. Rows are those of `data.selection`: gates alone see `validation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str | None = None
    """Metric to keep; by default the task's usual one."""
    max_drop: float = Field(gt=0, lt=1, allow_inf_nan=False)
    """How much worse than the float model the quantized one may be, as a fraction; of an error such as mse: how much
    larger."""
    drop: Literal["absolute", "relative"] = "relative"
    """Whether max_drop is a difference of metrics or a share of the float model's metric."""
    evaluations: int = Field(default=12, ge=2, le=1000)
    """How many quantized models are tried on the rows at most; of NNCF's control, the most iterations."""
    method: Literal["bisection", "nncf"] = "bisection"
    """`bisection` of the ranked operators, or the accuracy control of NNCF (quantize.openvino alone)."""
    sequences: int = Field(default=48, ge=1)
    """Sequences of `data.calibration` on which operators are ranked."""

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say what does not fit the task."""
        known = task.metrics_of(model)
        if self.metric is None or self.metric in known:
            return []
        near = did_you_mean(self.metric, known)
        return [f"accuracy: the task has no metric `{self.metric}`{near}; it has: {', '.join(known)}"]

    def name(self, task: Task, model: Path) -> str:
        """Name the metric."""
        return self.metric or task.metrics_of(model)[0]

    def drop_of(self, value: float, reference: float, lower_is_better: bool) -> float:
        """Return how much worse a metric is than the float model's, as `max_drop` is; infinite if undefined."""
        worse = value - reference if lower_is_better else reference - value
        if self.drop == "relative":
            worse = worse / abs(reference) if reference else math.inf if worse > 0 else 0.0
        return worse if math.isfinite(worse) else math.inf

    def kept(self, drop: float) -> bool:
        """Say whether a drop is within the bound."""
        return drop <= self.max_drop + ROUNDING


class Judge:
    """Answers the rows of a role with any number of models, and scores each."""

    def __init__(self, task: Task, model: Path, rows: Path, progress: Progress, role: str = "selection") -> None:
        """Read the rows.

        Args:
            task: encodes, decodes and scores.
            model: directory with the tokenizer, or what else the task encodes with.
            rows: JSON lines, a row each.
            progress: takes how many rows were answered.
            role: what the rows are for, for messages.

        Raises:
            RecipeError: there are none.
        """
        self.rows = task.read_rows(rows)
        if not self.rows:
            raise RecipeError(f"data.{role} has no rows; take some")
        self._task, self._model, self._progress = task, model, progress

    def metrics(self, session: Session, rows: Sequence[Row] | None = None) -> dict[str, float]:
        """Return the metrics of a model, as fractions.

        Args:
            session: the model.
            rows: some of `rows`; None for all.

        Raises:
            RecipeError: a row lacks the right answer.
        """
        task, found = self._task, list[Prediction]()
        kinds = task.input_kinds(self._model)
        rows = self.rows if rows is None else rows
        step = task.rows_at_once or len(rows)
        for first in range(0, len(rows), step):
            chunk = rows[first : first + step]
            features = task.encode(chunk, self._model)
            answers = answer(session, features, task, kinds, BATCH)
            found += task.decode(chunk, features, answers, self._model)
            self._progress("rows answered", len(found), len(rows))
        return dict(task.score(rows, {prediction["id"]: prediction for prediction in found}).metrics)
