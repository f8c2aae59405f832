"""From a checkpoint to OpenVINO IR that answers the same at any batch size and length."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import hf, openvino
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import batching, parity
from cpu_pipeline.stages._base import Count, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison, ExportFacts

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""Largest absolute difference of an output from eager float32 that the weights' type explains."""


class OpenvinoFacts(ExportFacts):
    """What was written."""

    bytes: dict[str, Count]
    """Name of a file -> its bytes."""


class ExportOpenvino(Stage):
    """Convert to OpenVINO, dynamic in batch and length, checked against eager; `export.optimum` takes some it can't."""

    facts_model: ClassVar = OpenvinoFacts
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("torch", "transformers", "openvino")

    weights: Literal["float32", "float16"] = "float32"
    """Type that weights are stored in, not computed in (see `inference_precision`); float16 halves the file."""
    inference_precision: Literal["f32", "bf16", "auto"] = "f32"
    """What the artifact asks OpenVINO to compute in; `auto` takes bf16 where the processor has it."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Largest absolute difference from eager float32 allowed; left out, 1e-4, and 2e-2 with float16 weights."""

    def gives(self) -> str:
        """Name the format of the exported model."""
        return openvino.FORMAT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name the two whose answers are compared."""
        return frozenset({"hf", openvino.FORMAT})

    def run(self, inputs: Inputs, out: Path, job: Job) -> OpenvinoFacts:
        """Trace, convert, write, load what was written, and compare it with eager at other shapes and with padding.

        The comparison computes in float32 whatever `inference_precision` says: it judges the graph, not the arithmetic.

        Raises:
            StageFailed: the model cannot be converted, or the written model answers differently.
        """
        if job.task is None:
            raise RecipeError("export.openvino: the recipe names no task, and it decides the model's head and outputs")
        source = inputs["model"].path
        module = hf.checkpoint(source, job.task)
        kinds = job.task.input_kinds(source)
        names = hf.inputs_of(module, kinds)
        batch = None if "input_ids" in names else batching.example(job.task, source, names)
        job.progress("converting")
        openvino.write(_convert(module, names, job.task.outputs, batch), out, half=self.weights == "float16")
        repo_files.carry(source, out)
        _card("f32").write(out)

        job.progress("comparing with the checkpoint")
        eager = hf.Eager(module, job.task.outputs, kinds)
        written = job.load(Artifact(openvino.FORMAT, out, "", {}))
        tolerance = self.tolerance or TOLERANCE[self.weights]
        compared = parity.parity(written, eager, source, job.task, tolerance, "export.openvino")
        _card(self.inference_precision).write(out)
        return OpenvinoFacts(
            inputs=list(names),
            outputs=list(job.task.outputs),
            bytes={name: (out / name).stat().st_size for name in (openvino.XML, openvino.BIN)},
            parity=Comparison.model_validate(compared),
        )


def _convert(module: Any, names: tuple[str, ...], outputs: tuple[str, ...], batch: batching.Example | None) -> Any:
    """Convert a torch module; keep the outputs that the task reads, under the task's names, and nothing else.

    `batch` is a batch that is not of tokens, and its axes that differ between calls; all others keep their size.
    """
    import torch

    ov = openvino.runtime()
    if batch is None:
        example = {name: torch.ones(2, 7, dtype=torch.int64) for name in names}
        # Padding in the example: a trace without any may leave the mask out.
        example["attention_mask"][1, 5:] = 0
    else:
        example = {name: torch.from_numpy(array) for name, array in batch[0].items()}
    with warnings.catch_warnings():
        # Every place where the trace may have frozen something; the comparison that follows finds those that matter.
        warnings.simplefilter("ignore")
        try:
            model = ov.convert_model(module, example_input=example)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            IndexError,
            ov.frontend.OpConversionFailure,
        ) as error:
            raise StageFailed(
                f"export.openvino: {type(module).__name__} cannot be converted: {one_line(error)}; "
                "`export.optimum` with `format: openvino` knows how to convert some models that OpenVINO alone does not"
            ) from error
    chosen = []
    for position, name in enumerate(outputs):
        found = [port for port in model.outputs if name in port.get_names()] or model.outputs[position : position + 1]
        if not found:
            raise StageFailed(f"export.openvino: the model has no output {name}")
        found[0].get_tensor().set_names({name})
        chosen.append(found[0].get_node())
    if batch is not None:
        _name_inputs(model, names, *batch)
    return ov.Model(chosen, model.get_parameters(), "model")


def _name_inputs(model: Any, names: tuple[str, ...], arrays: Arrays, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Give the inputs their names, which conversion may lose, and fix the sizes that never differ."""
    shapes = {}
    for name, port in zip(names, model.inputs, strict=True):
        port.get_tensor().set_names({name})
        shapes[name] = [-1 if axis in axes[name] else size for axis, size in enumerate(arrays[name].shape)]
    model.reshape(shapes)


def _card(precision: str) -> Card:
    hint = "dynamic" if precision == "auto" else precision
    return Card(openvino.FORMAT, runtime={"INFERENCE_PRECISION_HINT": hint})
