"""NNCF's accuracy control: it puts one group of operators after another back to float until the accuracy holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import openvino
from cpu_pipeline.core.errors import GateFailed
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.quantize._accuracy import Accuracy, Judge
from cpu_pipeline.stages.quantize._healing import HealingFacts, Point, require
from cpu_pipeline.stages.quantize._openvino_variants import compress, operators

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Feature

WORST = 1e9
"""A drop that is not finite, as NNCF can compare it."""


class NncfControl:
    """Quantizes with `nncf.quantize_with_accuracy_control`, whose number of iterations is bounded by `evaluations`."""

    def __init__(self, accuracy: Accuracy, source: Path, job: Job, settings: Mapping[str, Any]) -> None:
        """Read the selection rows.

        Args:
            accuracy: the bound.
            source: directory of the float model, with what the task encodes with.
            job: has the task and the rows of `selection`.
            settings: how the model is compiled, besides what every model of ours is.

        Raises:
            RecipeError: the task or rows are missing, or the task has no such metric.
        """
        self._task = require("quantize.openvino", source, accuracy, job)
        self._accuracy, self._source, self._threads, self._settings = accuracy, source, job.threads, settings
        self._judge = Judge(self._task, source, job.data["selection"], job.progress)
        self._metric = accuracy.name(self._task, source)
        self._lower = self._metric in self._task.lower_is_better
        self._whole: list[float] = []
        """The metric on all rows of the float model, the quantized one, and that of each iteration."""
        self.facts: HealingFacts | None = None

    def quantize(self, model: Any, dataset: Any, *, advanced_parameters: Any, **options: Any) -> Any:
        """Quantize a model as `nncf.quantize` does, and control its accuracy.

        Raises:
            GateFailed: the accuracy does not hold after the allowed iterations.
        """
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

        names = [port.get_any_name() for port in model.inputs]
        kinds = self._task.input_kinds(self._source)
        features = self._task.encode(self._judge.rows, self._source)

        def arrays(feature: Feature) -> Arrays:
            return pad([feature], names, kinds)

        with tempfile.TemporaryDirectory(prefix="cpu-pipeline-") as folder:
            found = nncf.quantize_with_accuracy_control(
                model,
                dataset,
                nncf.Dataset(features, arrays),
                lambda compiled, items: (self._value(compiled, items, len(features)), None),
                max_drop=self._accuracy.max_drop,
                # What it sees is 1 less the drop: it knows no metric of which less is better.
                drop_type=nncf.DropType.ABSOLUTE,
                advanced_quantization_parameters=advanced_parameters,
                advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                    max_num_iterations=self._accuracy.evaluations,
                    # Fewer than all: a call with all of them is a trial.
                    ranking_subset_size=max(1, min(self._accuracy.sequences, len(features) - 1)),
                    num_ranking_workers=1,
                    intermediate_model_dir=folder,
                ),
                **options,
            )
            core, file = openvino.runtime().Core(), Path(folder) / "intermediate_model.xml"
            everything = {each.name: each for each in operators(core.read_model(file))}
        left = {each.name for each in operators(found)}
        compress(found)
        session = openvino.open_model(found, self._settings, self._task, self._threads)
        value = self._judge.metrics(session)[self._metric]
        floats = [name for name in everything if name not in left]
        weights = sum(each.weights for each in everything.values())
        share = 1 - sum(everything[name].weights for name in floats) / weights if weights else 0.0
        self.facts = self._told(value, floats, len(everything), share)
        self._require_kept(self.facts)
        return found

    def _told(self, value: float, floats: list[str], total: int, share: float) -> HealingFacts:
        reference, unhealed = self._whole[:2]
        points = [Point(floats=0, value=unhealed, drop=self._drop(unhealed), int8_weights=1.0)]
        if floats:
            points.append(Point(floats=len(floats), value=value, drop=self._drop(value), int8_weights=share))
        return HealingFacts(
            metric=self._metric,
            reference=reference,
            value=value,
            unhealed=unhealed,
            max_drop=self._accuracy.max_drop,
            drop=self._accuracy.drop,
            rows=len(self._judge.rows),
            operators=total,
            floats=floats,
            damage={},
            measure="",
            curve=points,
            method="nncf",
        )

    def _require_kept(self, facts: HealingFacts) -> None:
        drop = facts.curve[-1].drop
        if drop is not None and self._accuracy.kept(drop):
            return
        tried = ", ".join(f"{value:.4f}" for value in self._whole[1:])
        raise GateFailed(
            f"quantize.openvino: the accuracy can't be reached by NNCF's accuracy control: {self._metric} of the float "
            f"model is {self._whole[0]:.4f} on the selection rows, and {tried} with everything quantized and after "
            f"each of {len(self._whole) - 2} iterations (at most {self._accuracy.evaluations}); {len(facts.floats)} of "
            f"{facts.operators} operators were put back to float. Allow more `evaluations` or a larger `max_drop`, or "
            "take `method: bisection`"
        )

    def _drop(self, value: float) -> float:
        return self._accuracy.drop_of(value, self._whole[0], self._lower)

    def _value(self, compiled: Any, items: Iterable[Any], total: int) -> float:
        """Return 1 less the drop of a model on the rows of some sequences."""
        features = list(items)
        session = openvino.session(compiled, self._task, self._source)
        rows = self._judge.rows
        whole = len(features) == total
        if not whole:
            rows = [rows[number] for number in sorted({feature.row for feature in features})]
        value = self._judge.metrics(session, rows)[self._metric]
        if whole:
            self._whole.append(value)
        return max(-WORST, 1 - self._drop(value)) if self._whole else 1.0
