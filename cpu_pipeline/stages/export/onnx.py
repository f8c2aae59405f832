"""Turn a checkpoint into an ONNX graph, and prove that it still gives the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.backends import hf
from cpu_pipeline.backends.onnx import FORMAT, MODEL
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import batching, parity
from cpu_pipeline.stages import _onnx
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages._module import with_names

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task


class OnnxFacts(Facts):
    """What the exported graph holds."""

    bytes: Count
    """Bytes of graph and weights."""
    nodes: Count
    """Nodes of the graph."""
    operators: dict[str, Count]
    """Operator -> number of nodes."""
    parity: Comparison
    """Distance from the checkpoint's own outputs."""


class ExportOnnx(Stage):
    """Export to ONNX, dynamic in batch and length, checked against eager; `export.optimum` takes some it can't."""

    facts_model: ClassVar = OnnxFacts
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript")

    opset: int = Field(default=18, ge=18, le=23)
    """ONNX operator set to write; `fuse.onnx` knows the patterns of 18, and 23 has an Attention operator of its own."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest absolute difference from eager float32 answers, at several lengths and with padding, that may pass."""
    inline: int = Field(default=_onnx.INLINE, ge=0, le=_onnx.INLINE)
    """Bytes of weights that stay inside model.onnx; a larger model keeps them in model.onnx_data beside it."""

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> OnnxFacts:
        """Export, copy what belongs to the model, and compare."""
        if job.task is None:
            raise RecipeError("export.onnx: the recipe names no task; it says which head to export")
        source = inputs["model"].path
        model = hf.checkpoint(source, job.task)
        repo_files.carry(source, out)
        job.progress("exporting")
        export(model, job.task, source, out, self.opset, self.inline)
        Card(FORMAT).write(out)
        job.progress("comparing with the checkpoint")
        candidate = job.load(Artifact(FORMAT, out, "", {}))
        reference = hf.Eager(model, job.task.outputs, job.task.input_kinds(source))
        compared = parity.parity(candidate, reference, source, job.task, self.tolerance, "export.onnx")
        counts = _onnx.count_operators(out / MODEL)
        return OnnxFacts(
            bytes=_onnx.size(out),
            nodes=sum(counts.values()),
            operators=counts,
            parity=Comparison.model_validate(compared),
        )


def export(model: Any, task: Task, source: Path, out: Path, opset: int, inline: int = _onnx.INLINE) -> None:
    """Write a model as model.onnx, dynamic in batch and length.

    Args:
        model: what `hf.checkpoint` returned.
        task: names the outputs, and makes an example where the model takes no tokens.
        source: the checkpoint's directory.
        out: directory to write into.
        opset: ONNX operator set.
        inline: bytes of weights that stay in model.onnx.

    Raises:
        StageFailed: the exporter does not know how.
    """
    import torch

    names = hf.inputs_of(model, task.input_kinds(source))
    if "input_ids" in names:
        # Two sequences of eight tokens, one padded: sizes of 0 and 1 would be taken for constants.
        example = {name: torch.ones((2, 8), dtype=torch.int64) for name in names}
        example["attention_mask"][1, 5:] = 0
        axes = {name: {0: "batch", 1: "sequence"} for name in names}
    else:
        arrays, axes = batching.example(task, source, names)
        example = {name: torch.from_numpy(array) for name, array in arrays.items()}
    dims = {axis: torch.export.Dim(axis) for shape in axes.values() for axis in shape.values()}
    try:
        program = torch.onnx.export(
            with_names(model, names, task.outputs),
            (),
            kwargs=example,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={name: {n: dims[axis] for n, axis in axes[name].items()} for name in names},
            input_names=list(names),
            output_names=list(task.outputs),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise StageFailed(
            f"export.onnx: torch cannot export {type(model).__name__}: {_reason(error)}; `export.optimum` knows how to "
            "export some models that torch alone does not"
        ) from error
    _onnx.tidy(program.model, "model.")
    _onnx.save(program.model, out, inline)


def _reason(error: BaseException) -> str:
    """Write the first cause of an error on one line: the exporter's own message is advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
