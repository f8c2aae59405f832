"""Let Optimum's exporters write a checkpoint that the direct ones cannot, and hold the result to the same proof.

Optimum patches what a trace of some architectures would freeze; it wants transformers 4, which is why it runs in an
environment of its own. The answers it is compared with are those of the default environment's transformers.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.backends import onnx, openvino
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages import _onnx
from cpu_pipeline.stages._base import Count, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison, ExportFacts

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

ENVIRONMENT = "optimum"
HEADS = {
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModel": "feature-extraction",
}
"""transformers' class for a task's head -> what Optimum calls the task."""
BROKEN = (
    RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, ImportError, OSError
)  # fmt: skip
"""What Optimum, transformers and torch raise when they do not know how."""


class OptimumFacts(ExportFacts):
    """What was written."""

    bytes: Count
    """Bytes of graph and weights."""


class ExportOptimum(Stage):
    """Export to ONNX or OpenVINO with Optimum where `export.onnx` and `export.openvino` fail; compare with eager."""

    facts_model: ClassVar = OptimumFacts
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = (
        "optimum",
        "optimum-onnx",
        "optimum-intel",
        "transformers",
        "torch",
        "onnx",
        "onnx_ir",
        "openvino",
    )

    format: Literal["onnx", "openvino"] = "onnx"
    """What to write."""
    opset: Annotated[int, Field(ge=11, le=20)] | None = None
    """ONNX operator set; left out, the one Optimum prefers for the architecture. No use with `format: openvino`."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest absolute difference from eager float32 answers, at several lengths and with padding, that may pass."""

    @model_validator(mode="after")
    def _options_fit(self) -> ExportOptimum:
        if self.opset is not None and self.format != "onnx":
            raise ValueError(f"opset: no use with `format: {self.format}`, which has none")
        return self

    def gives(self) -> str:
        """Name the format, as the option `format` has it."""
        return self.format

    def environment(self, backends: Mapping[str, str]) -> str:
        """Run where Optimum and the transformers it needs are."""
        return ENVIRONMENT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return frozenset({"hf", self.format})

    def run(self, inputs: Inputs, out: Path, job: Job) -> OptimumFacts:
        """Export, copy what belongs to the model, load what was written, and compare.

        Config and tokenizer are the checkpoint's own: what transformers 4 would save again is not what version 5 reads.

        Raises:
            StageFailed: Optimum does not know the architecture, or the written model answers differently.
            BackendMissing: this is not the environment that has Optimum.
        """
        if job.task is None:
            raise RecipeError("export.optimum: the recipe names no task; it says which head to export")
        source = inputs["model"]
        with _quiet():
            model = checkpoint(source.path, job.task)
            write = _write_onnx if self.format == "onnx" else _write_openvino
            names = write(model, job.task, out, self.opset)
        repo_files.carry(source.path, out)
        precision = {"INFERENCE_PRECISION_HINT": "f32"} if self.format == "openvino" else {}
        Card(self.format, runtime=precision).write(out)
        candidate = job.load(Artifact(self.format, out, "", {}))
        compared = parity.parity(candidate, job.load(source), source.path, job.task, self.tolerance, "export.optimum")
        return OptimumFacts(
            inputs=names,
            outputs=list(job.task.outputs),
            bytes=_size(out),
            parity=Comparison.model_validate(compared),
        )


def checkpoint(path: Path, task: Task) -> Any:
    """Load a checkpoint with the task's head for exporting: float32, eval, safetensors only, offline, no foreign code.

    The tokenizer is left alone: one saved by transformers 5 does not load in version 4.

    Raises:
        StageFailed: transformers 4 does not know the architecture, or finds weights missing.
        BackendMissing: this is not the environment that has Optimum.
    """
    try:
        import optimum.exporters.tasks  # noqa: F401  # raises where it is not installed
        import torch
        import transformers
        from safetensors import SafetensorError
    except ImportError as error:
        raise BackendMissing(
            f"export.optimum needs Optimum ({error}); make its environment: cpu-pipeline env create {ENVIRONMENT}"
        ) from error
    try:
        model, report = getattr(transformers, task.auto_class).from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (*BROKEN, SafetensorError) as error:
        raise StageFailed(
            f"export.optimum: transformers {transformers.__version__} does not load this checkpoint: {one_line(error)}"
        ) from error
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise StageFailed(
            f"export.optimum: transformers {transformers.__version__} finds no weights for {', '.join(missing[:4])}"
        )
    return model.eval().requires_grad_(False)


def _write_onnx(model: Any, task: Task, out: Path, opset: int | None) -> list[str]:
    """Write model.onnx; return the names of its inputs."""
    import onnx_ir as ir

    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        from optimum.exporters.onnx import convert

        raw = Path(scratch) / onnx.MODEL
        config = _exporter("onnx", model, task)
        with _one_line_errors(model):
            convert.export(
                model,
                config,
                raw,
                opset=opset or config.DEFAULT_ONNX_OPSET,
                device="cpu",
                disable_dynamic_axes_fix=True,
            )
        graph = ir.load(raw)
        names = [value.name for value in graph.graph.outputs]
        if names[: len(task.outputs)] != list(task.outputs):
            raise StageFailed(f"export.optimum: the graph gives {', '.join(map(str, names))}, not {task.outputs}")
        del graph.graph.outputs[len(task.outputs) :]
        _onnx.strip(graph)
        _onnx.save(graph, out)
    return [str(value.name) for value in graph.graph.inputs]


def _write_openvino(model: Any, task: Task, out: Path, opset: int | None) -> list[str]:
    """Write openvino_model.xml and .bin; return the names of the inputs."""
    ov = openvino.runtime()
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        from optimum.exporters.openvino import convert

        raw = Path(scratch) / openvino.XML
        with _one_line_errors(model):
            convert.export(model, _exporter("openvino", model, task), raw, stateful=False, library_name="transformers")
        read = ov.Core().read_model(raw, raw.with_suffix(".bin"))
        ports = {name: port for port in read.outputs for name in port.get_names()}
        if lost := [name for name in task.outputs if name not in ports]:
            raise StageFailed(f"export.optimum: the model has no output {lost[0]}; it has {', '.join(sorted(ports))}")
        chosen = ov.Model([ports[name].get_node() for name in task.outputs], read.get_parameters(), "model")
        openvino.write(chosen, out)
        return [port.get_any_name() for port in chosen.inputs]


def _exporter(format: str, model: Any, task: Task) -> Any:
    """Make Optimum's export configuration for a model.

    Raises:
        StageFailed: Optimum has none for this architecture and task.
    """
    from optimum.exporters.tasks import TasksManager

    if format == "openvino":
        import optimum.exporters.openvino.model_configs  # noqa: F401  # registers what OpenVINO adds
    name = HEADS.get(task.auto_class)
    if name is None:
        raise StageFailed(f"export.optimum: Optimum has no task for {task.auto_class}")
    kind = model.config.model_type
    try:
        make = TasksManager.get_exporter_config_constructor(
            exporter=format, model=model, task=name, library_name="transformers"
        )
    except (ValueError, KeyError) as error:
        raise StageFailed(
            f"export.optimum: Optimum cannot export {kind} for {name} to {format}: {one_line(error)}"
        ) from error
    return make(model.config, int_dtype="int64", float_dtype="fp32")


@contextlib.contextmanager
def _one_line_errors(model: Any) -> Iterator[None]:
    """Write whatever Optimum's exporter raises on one line; draw its example inputs from a fixed seed."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        yield
    except (*BROKEN, torch.onnx.errors.OnnxExporterError, AssertionError) as error:
        raise StageFailed(f"export.optimum: Optimum cannot export {type(model).__name__}: {one_line(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what tracing warns of (the comparison finds what matters), and OpenVINO's telemetry."""
    # First of all: Optimum imports OpenVINO by itself, and would wake its telemetry.
    openvino.runtime()
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _size(out: Path) -> int:
    return sum(path.stat().st_size for path in out.iterdir() if path.suffix in (".onnx", ".onnx_data", ".xml", ".bin"))
