"""Rank the operators of a quantized model by the damage that each does, and confirm the worst by the metric."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from cpu_pipeline import stages
from cpu_pipeline.backends.onnx import FORMAT as ONNX
from cpu_pipeline.backends.openvino import FORMAT as OPENVINO
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Count, Facts, Figure, FindSource, Host, Inputs, Job, Stage
from cpu_pipeline.stages.quantize._accuracy import Judge
from cpu_pipeline.stages.quantize._damage import Probe, damages
from cpu_pipeline.stages.quantize._scratch import Notes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cpu_pipeline.stages.quantize._variants import Variants

FILE = "sensitivity.json"
Role = Literal["selection", "calibration"]


class Quantizer(Protocol):
    """A stage whose operators can be left in float one by one."""

    def variants(self, source: Path, folder: Path, job: Job) -> AbstractContextManager[Variants]:
        """Give the model with any operators left in float."""


class Damage(Facts):
    """One quantized operator."""

    name: str
    """Its name in the float graph."""
    kind: str
    """Its type."""
    weights: Count
    """Elements of its own weights; 0 where it multiplies activations."""
    damage: Figure
    """How far the answers move when it alone is quantized."""


class Confirmed(Facts):
    """The model with one operator back in float."""

    name: str
    """The operator."""
    value: Figure
    """The model's metric, as a fraction."""


class SensitivityFacts(Facts):
    """What each operator's quantization does to the answers."""

    measure: str
    """What damage is: KL divergence (nats) or relative squared error."""
    sequences: Count
    """Sequences of calibration rows on which it was measured."""
    operators: list[Damage]
    """Every quantized operator, the one that does most damage first."""
    metric: str
    """The metric of what follows."""
    lower_is_better: bool
    """Whether less of it is better."""
    role: Role
    """The rows on which it was measured."""
    rows: Count
    """How many they are."""
    reference: Figure = None
    """The float model's metric; None where the rows have no right answers."""
    quantized: Figure = None
    """The metric with every operator quantized; None likewise."""
    confirmed: list[Confirmed] = Field(default_factory=list)
    """The worst operators, each put back to float alone; empty where the rows have no right answers."""


class QuantizeSensitivity(Stage):
    """Measure how much each operator of a quantized model moves its answers."""

    facts_model: ClassVar = SensitivityFacts
    takes: ClassVar = {"model": {ONNX, OPENVINO}}
    reads: ClassVar = frozenset({"task", "target", "data.calibration", "data.selection?"})
    packages: ClassVar = ("onnx", "onnx_ir", "onnxruntime", "openvino", "nncf", "numpy", "tokenizers")
    internal: ClassVar = True

    use: Literal["quantize.onnx", "quantize.openvino"]
    """The stage that quantizes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options; `accuracy` has no part in this."""
    role: Role = "selection"
    """The rows on which the worst operators are confirmed."""
    metric: str | None = None
    """The metric that confirms them; by default the task's usual one."""
    worst: int = Field(default=5, ge=0)
    """How many operators are confirmed."""
    sequences: int = Field(default=48, ge=1)
    """Sequences of calibration rows on which operators are ranked."""

    def gives(self) -> str:
        """Name the format of the output."""
        return "report"

    def asks(self) -> Set[str]:
        """Ask for the rows that rank, and those that confirm."""
        return {"task", "target", "data.calibration", f"data.{self.role}"}

    def host(self) -> Host:
        """Say what the quantizer hangs on: instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Answer with models of the quantizer's own format."""
        return frozenset({self.use.removeprefix("quantize.")})

    def identity(self, source: FindSource) -> object:
        """Return the version of the quantizer: what it does counts as this stage's own doing."""
        return stages.get(self.use).version

    def run(self, inputs: Inputs, out: Path, job: Job) -> SensitivityFacts:
        """Rank, confirm, and write both as JSON.

        Raises:
            RecipeError: rows are missing, or nothing can be left in float.
        """
        source, task, notes = inputs["model"].path, job.task, Notes(job.scratch)
        if task is None or not {"calibration", self.role} <= set(job.data):
            raise RecipeError("sensitivity needs a task and data.calibration in the recipe")
        metric = self.metric or task.metrics_of(source)[0]
        probe = Probe(task, source, job.data["calibration"], self.sequences)
        judge = Judge(task, source, job.data[self.role], job.progress, self.role)
        with self._quantizer().variants(source, out, job) as variants:
            found = damages(variants, probe, notes, job.progress)
            if not found:
                raise RecipeError(f"{self.use}: no operator is quantized; name other operators or skip fewer")
            kinds = {operator.name: operator for operator in variants.operators}

            def measured(names: Set[str] | None) -> float | None:
                key = "reference" if names is None else " ".join(("float", *names))
                if (known := notes.get(key)) is None:
                    session = variants.original() if names is None else variants.keeping(names)
                    known = [_number(judge.metrics(session)[metric])]
                    notes.put(key, known)
                value: float | None = known[0]
                return value

            told: dict[str, Any] = {}
            if self._answered(measured):
                told = {"reference": measured(None), "quantized": measured(set())}
                told["confirmed"] = [Confirmed(name=name, value=measured({name})) for name in list(found)[: self.worst]]
        facts = SensitivityFacts(
            measure=probe.measure,
            sequences=len(probe.features),
            operators=[
                Damage(name=name, kind=kinds[name].kind, weights=kinds[name].weights, damage=value)
                for name, value in found.items()
            ],
            metric=metric,
            lower_is_better=metric in task.lower_is_better,
            role=self.role,
            rows=len(judge.rows),
            **told,
        )
        (out / FILE).write_text(json.dumps(facts.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        return facts

    def _answered(self, measured: Callable[[None], object]) -> bool:
        """Measure the float model; say whether the rows have right answers: calibration rows need none."""
        try:
            measured(None)
        except RecipeError:
            if self.role == "selection":
                raise
            return False
        return True

    def _quantizer(self) -> Quantizer:
        options = {name: value for name, value in self.options.items() if name != "accuracy"}
        made: Any = stages.get(self.use)(**options)
        quantizer: Quantizer = made
        return quantizer


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
