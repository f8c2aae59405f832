"""Compile a checkpoint ahead of time with AOTInductor: what torch.compile becomes when it is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages.compile import _inductor
from cpu_pipeline.stages.compile._toolchain import toolchain

WHERE = "compile.aoti"
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}


class AotiFacts(Facts):
    """What was compiled, with what."""

    dtype: str
    """What matrix products are computed in."""
    needs: list[str]
    """Instruction sets that the library needs."""
    compiler: str
    """First line of what the C++ compiler prints about itself."""
    bytes: Count
    """Bytes of the library and its weights."""
    parity: Comparison
    """Distance from eager float32 outputs."""


class CompileAoti(Stage):
    """Compile a checkpoint into a shared library with AOTInductor, and compare its answers with eager torch."""

    facts_model: ClassVar = AotiFacts
    remedies: ClassVar = ("dtype",)
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head", "target"})
    packages: ClassVar = ("torch", "transformers")
    version: ClassVar = 2

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What matrix products are computed in; bfloat16 is fast on a CPU with instructions for it alone."""
    freezing: bool = True
    """Fold and pack weights while compiling; false keeps them as the checkpoint has them."""
    tolerance: float | None = Field(default=None, gt=0)
    """Largest absolute difference from eager float32 allowed; left out, 1e-4, and 0.2 in bfloat16."""

    def gives(self) -> str:
        """Name the format."""
        return pt2.FORMAT

    def host(self) -> Host:
        """Say that it is compiled for an instruction set, and checked on this machine's."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", pt2.FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> AotiFacts:
        """Look for the compiler, export, compile, and compare, at several lengths and with padding.

        Raises:
            StageFailed: the model cannot be exported or compiled, or answers differently.
            BackendMissing: there is no C++ compiler, or this CPU cannot run what the target can.
        """
        if job.task is None:
            raise RecipeError(f"{WHERE}: the recipe names no task; it says which head to compile")
        tools = toolchain(WHERE, job.isa, self.dtype)
        source = inputs["model"].path
        model, kinds = hf.checkpoint(source, job.task), job.task.input_kinds(source)
        module, names, example = _inductor.prepare(model, job.task.outputs, self.dtype, kinds)
        program = _inductor.export_program(WHERE, module, names, example)
        _inductor.compile_program(WHERE, program, out, tools, options={"freezing": self.freezing})
        repo_files.carry(source, out)
        _inductor.card(tools.level, model, names, job.task.outputs, self.dtype).write(out)

        candidate = job.load(Artifact(pt2.FORMAT, out, "", {}))
        eager = hf.Eager(model, job.task.outputs, kinds)
        tolerance = self.tolerance or TOLERANCE[self.dtype]
        compared = parity.parity(candidate, eager, source, job.task, tolerance, WHERE)
        return AotiFacts(
            dtype=self.dtype,
            needs=list(tools.level.needs),
            compiler=tools.about,
            bytes=(out / pt2.MODEL).stat().st_size,
            parity=Comparison.model_validate(compared),
        )
