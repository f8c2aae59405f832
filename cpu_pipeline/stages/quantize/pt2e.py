"""Quantize a checkpoint's linear layers to int8 with torchao, and compile what comes out with AOTInductor."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import host, repo_files
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages.compile import _inductor
from cpu_pipeline.stages.compile._toolchain import toolchain
from cpu_pipeline.stages.quantize._ranges import feed

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Task

WHERE = "quantize.pt2e"
CALL = "aoti_torch_cpu__qlinear_pointwise"
"""What the compiled model calls for each linear layer in int8."""


class Pt2eCalibration(Facts):
    """What activations' ranges were fixed from; zeros with `activations: dynamic`."""

    samples: Count
    """Sequences."""
    tokens: Count
    """Tokens of these sequences, with padding."""


class Pt2eFacts(Facts):
    """What was quantized and compiled."""

    activations: str
    """`static` or `dynamic`."""
    dtype: str
    """What is computed in beside the linear layers."""
    linear_layers: Count
    """Linear layers of the model."""
    quantized_linear_layers: Count
    """Calls of an int8 linear layer in the compiled model."""
    reduced_range: bool
    """Whether activations keep to 7 bits."""
    calibration: Pt2eCalibration
    needs: list[str]
    """Instruction sets that the library needs."""
    compiler: str
    """First line of what the C++ compiler prints about itself."""
    bytes: Count
    """Bytes of the library and its weights."""
    compared: Comparison
    """Distance from eager float32 outputs, on random tokens."""


class QuantizePt2e(Stage):
    """Quantize a checkpoint's linear layers to int8 with torchao's X86InductorQuantizer, and compile it."""

    facts_model: ClassVar = Pt2eFacts
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task", "target", "data.calibration?"})
    packages: ClassVar = ("torch", "transformers", "torchao")
    version: ClassVar = 2
    quantizes: ClassVar = True
    remedies: ClassVar = ("samples", "activations", "dtype")

    activations: Literal["static", "dynamic"] = "static"
    """Ranges of activations fixed from `data.calibration`, or computed for each batch."""
    samples: int = Field(default=64, ge=1)
    """Rows to calibrate with, spread evenly over all that `data.calibration` gives."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What is computed in beside the linear layers; bfloat16 is faster on a CPU with instructions for it."""

    @model_validator(mode="after")
    def _options_fit(self) -> QuantizePt2e:
        if self.activations == "dynamic" and "samples" in self.model_fields_set:
            raise ValueError("samples: no use with `activations: dynamic`, which calibrates nothing")
        return self

    def gives(self) -> str:
        """Name the format."""
        return pt2.FORMAT

    def asks(self) -> Set[str]:
        """Ask for calibration rows and the whole task where ranges are fixed from them, else for its head."""
        rows = {"task", "data.calibration"} if self.activations == "static" else {"task.head"}
        return {"target"} | rows

    def host(self) -> Host:
        """Say that it is compiled for an instruction set, and calibrated and checked on this machine's."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", pt2.FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> Pt2eFacts:
        """Look for the compiler, export, calibrate, quantize, compile, and compare.

        Raises:
            StageFailed: the model cannot be exported or compiled, no layer was quantized, or answers are not finite.
            RecipeError: there is nothing to calibrate on.
            BackendMissing: torchao, a C++ compiler, or an instruction set that the target has is not here.
        """
        if job.task is None:
            raise RecipeError(f"{WHERE}: the recipe names no task; it says which head to quantize")
        tools, reduced = toolchain(WHERE, job.isa, self.dtype), _reduced(job.isa)
        source = inputs["model"].path
        model = hf.checkpoint(source, job.task)
        module, names, example = _inductor.prepare(model, job.task.outputs, given=job.task.input_kinds(source))
        batches = self._calibration(source, names, job)

        exported = _inductor.export_program(WHERE, module, names, example)
        with _torchao() as passes:
            quantized = self._quantize(exported, batches, reduced, job)
            job.progress("compiling")
            program = _inductor.export_program(WHERE, quantized, names, example)
            options = {"freezing": True, **passes}
            text = _inductor.compile_program(WHERE, program, out, tools, mixed=self.dtype, options=options)
        count = text.count(f"{CALL}_") + text.count(f"{CALL}(")
        if not count:
            raise StageFailed(f"{WHERE}: no linear layer was quantized in {type(model).__name__}")
        repo_files.carry(source, out)
        needs = () if reduced else (host.VNNI,)
        _inductor.card(tools.level, model, names, job.task.outputs, f"int8, {self.dtype}", needs).write(out)

        compared = _compare(job.load(Artifact(pt2.FORMAT, out, "", {})), model, source, job.task)
        tokens = sum(batch["input_ids"].size for batch in batches)
        return Pt2eFacts(
            activations=self.activations,
            dtype=self.dtype,
            linear_layers=_linear_layers(exported),
            quantized_linear_layers=count,
            reduced_range=reduced,
            calibration=Pt2eCalibration(samples=len(batches), tokens=tokens),
            needs=[*tools.level.needs, *needs],
            compiler=tools.about,
            bytes=(out / pt2.MODEL).stat().st_size,
            compared=compared,
        )

    def _calibration(self, source: Path, names: Sequence[str], job: Job) -> list[Arrays]:
        """Encode the rows, each window alone: padding would widen the ranges."""
        if self.activations == "dynamic":
            return []
        if job.task is None or "calibration" not in job.data or not read_jsonl(job.data["calibration"]):
            raise RecipeError(f"{WHERE}: `activations: static` needs rows in `data.calibration`, at least one")
        return feed(job.task, source, job.data["calibration"], self.samples, 1, names)

    def _quantize(self, exported: Any, batches: Sequence[Arrays], reduced: bool, job: Job) -> Any:
        """Put observers on the linear layers, show them the batches, and turn what they saw into int8."""
        import torch
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        config = x86.get_default_x86_inductor_quantization_config(
            is_dynamic=self.activations == "dynamic", reduce_range=reduced
        )
        # Linear layers alone: the default also observes what it finds between them, such as integer positions.
        quantizer = x86.X86InductorQuantizer().set_function_type_qconfig(torch.nn.functional.linear, config)
        try:
            # Ranges follow sums, and these the number of threads.
            with torch.no_grad(), _inductor.threads(job.threads):
                prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
                if not batches:
                    # Observers see weights on a call, too: without one, their scales would be made up.
                    prepared(**exported.example_inputs[1])
                for number, batch in enumerate(batches):
                    job.progress("calibration sequences", number, len(batches))
                    prepared(**{name: torch.from_numpy(array) for name, array in batch.items()})
                return convert_pt2e(prepared)
        except _inductor.FAILURES as error:
            raise StageFailed(f"{WHERE}: torchao does not quantize this model: {one_line(error)}") from error


def _compare(candidate: Session, model: Any, source: Path, task: Task) -> Comparison:
    """Measure the distance from eager outputs; only values that are not finite fail, for int8 has its price."""
    eager = hf.Eager(model, task.outputs, task.input_kinds(source))
    compared = parity.compare(candidate, eager, task.examples(source), task.input_kinds(source), task.per_token)
    parity.require_parity(compared, float("inf"), WHERE)
    return Comparison.model_validate(compared)


def _reduced(isa: tuple[str, ...]) -> bool:
    """Say whether activations must keep to 7 bits: where the target lacks VNNI, sums of 8 overflow."""
    if not host.has_vnni(isa or None):
        return True
    if not host.has_vnni():
        raise BackendMissing(
            f"{WHERE}: this machine has no VNNI and the target has: its int8 sums overflow, so the model could not be "
            "checked here; build where the target's instruction sets are"
        )
    return False


def _linear_layers(exported: Any) -> int:
    import torch

    return sum(node.target is torch.ops.aten.linear.default for node in exported.graph.nodes)


@contextlib.contextmanager
def _torchao() -> Iterator[dict[str, Any]]:
    """Import torchao, which sets a pass for all of Inductor; hand that over as an option instead, and be quiet."""
    from torch._inductor import config

    before, level = config.pre_grad_custom_pass, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
            except ImportError as error:
                raise BackendMissing(f"{WHERE}: quantizing needs torchao: {error}; pip install torchao") from error
            config.pre_grad_custom_pass = before
            yield {"pre_grad_custom_pass": x86.quant_lift_up}
    finally:
        logging.disable(level)
        config.pre_grad_custom_pass = before
