"""From a checkpoint to TorchScript that runs without Python; where a trace would lie, to the checkpoint and why."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import hf
from cpu_pipeline.backends.torchscript import FORMAT, MODEL
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.figures import Note
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import batching, parity
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages._module import FAILURES
from cpu_pipeline.stages._trace import trace, write

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

WHERE = "export.torchscript"


class TorchscriptFacts(Facts):
    """What was written, and what the tracer warned of."""

    eager: bool
    """Whether the artifact is the checkpoint itself, because its trace failed."""
    bytes: Count
    """Bytes of the weights, and of the graph where there is one."""
    parity: Comparison
    """Distance from eager outputs in the same type."""
    rounding: Comparison | None = None
    """Distance from eager float32, where another type was chosen."""
    reason: str = ""
    """Why the trace was given up, with `eager`."""
    tracer_warnings: list[str]
    """One line for each warning of torch's tracer: a file's name and what it warns of."""


class ExportTorchscript(Stage):
    """Trace and freeze a checkpoint as TorchScript for Python and C++, checked against eager torch."""

    facts_model: ClassVar = TorchscriptFacts
    remedies: ClassVar = ("dtype",)
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("torch", "transformers", "safetensors")

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and arithmetic; bfloat16 halves the file, and is fast on processors with AVX-512 BF16 or AMX."""
    optimize_for_inference: bool = False
    """Run torch's pass of this name too; made for vision, it gains encoders little, and its result may not save."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest absolute difference from eager answers in the same `dtype`, at several lengths and with padding."""
    on_failure: Literal["fail", "eager"] = "fail"
    """What to do where the trace fails or answers differently: stop, or keep the checkpoint itself and say so."""

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def host(self) -> Host:
        """Say that torch's own pass looks at what the machine has."""
        return "isa" if self.optimize_for_inference else "none"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> TorchscriptFacts:
        """Trace, freeze, write, load what was written, and compare; on failure do as `on_failure` says.

        Raises:
            StageFailed: the model cannot be traced or its trace answers differently, and `on_failure` is `fail`.
        """
        if job.task is None:
            raise RecipeError(f"{WHERE}: the recipe names no task; it says which head to export")
        source = inputs["model"].path
        repo_files.carry(source, out)
        warned: list[str] = []
        try:
            facts = self._script(source, out, job, job.task, warned)
        except StageFailed as error:
            if self.on_failure == "fail":
                hint = "set `on_failure: eager` to ship the checkpoint itself, or take another export"
                raise StageFailed(f"{error}; {hint}") from error
            (out / MODEL).unlink(missing_ok=True)
            # The directory's name changes from run to run.
            reason = str(error).replace(str(out), FORMAT)
            facts = {**_copy_checkpoint(source, out, job, job.task, self.tolerance), "reason": reason}
        return TorchscriptFacts(**facts, tracer_warnings=warned)

    def _script(self, source: Path, out: Path, job: Job, task: Task, warned: list[str]) -> dict[str, Any]:
        """Write model.pt and prove it."""
        import torch

        module = hf.checkpoint(source, task)
        kinds = task.input_kinds(source)
        names = hf.inputs_of(module, kinds)
        arrays = None if "input_ids" in names else batching.example(task, source, names)[0]
        module = module.to(getattr(torch, self.dtype))
        write(script(module, names, task.outputs, self.optimize_for_inference, warned, arrays), out / MODEL, WHERE)
        runtime: dict[str, Any] = {"inputs": list(names), "outputs": list(task.outputs)}
        if arrays is not None:
            runtime["warm"] = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
        Card(FORMAT, runtime=runtime).write(out)
        written = job.load(Artifact(FORMAT, out, "", {}))
        eager = hf.Eager(module, task.outputs, kinds)
        facts: dict[str, Any] = {
            "eager": False,
            "bytes": (out / MODEL).stat().st_size,
            "parity": dict(parity.parity(written, eager, source, task, self.tolerance, WHERE)),
        }
        if self.dtype != "float32":
            exact = hf.Eager(hf.checkpoint(source, task), task.outputs, kinds)
            facts["rounding"] = dict(parity.compare(written, exact, task.examples(source), kinds, task.per_token))
        return facts

    def details(self, facts: TorchscriptFacts) -> list[Note]:
        """Warn where the artifact is no TorchScript, and give the reason; else write how far rounding went, if at all.

        The reason is a library's message, so outside text.
        """
        if facts.eager:
            return [
                Note(
                    "Not TorchScript: this artifact runs eagerly in float32, from the checkpoint, and needs Python and "
                    "transformers.",
                    warning=True,
                ),
                Note(f"The trace was given up: {' '.join(facts.reason.split())}"),
            ]
        if facts.rounding is None:
            return []
        gap, top = facts.rounding.max_abs or 0.0, facts.rounding.same_top or 0.0
        text = f"Rounding to {self.dtype} moves outputs by up to {gap:.3g}; the top answer stays for {top:.1%}."
        return [Note(text)]


def script(
    module: Any,
    names: tuple[str, ...],
    outputs: tuple[str, ...],
    optimize: bool,
    warned: list[str],
    arrays: Mapping[str, Any] | None = None,
) -> Any:
    """Trace and freeze a module.

    Args:
        module: what `hf.checkpoint` returned.
        names: its inputs, in order.
        outputs: what the task reads, in order.
        optimize: whether to run torch.jit.optimize_for_inference, too.
        warned: gets the tracer's warnings, a line each.
        arrays: name -> numpy array to trace with, for a model that takes no tokens.

    Raises:
        StageFailed: it does something that a trace cannot hold.
    """
    import torch

    try:
        frozen = torch.jit.freeze(trace(module, names, outputs, warned, arrays))
        return torch.jit.optimize_for_inference(frozen) if optimize else frozen
    except FAILURES as error:
        raise StageFailed(f"{WHERE}: {type(module).__name__} cannot be traced: {one_line(error)}") from error


def _copy_checkpoint(source: Path, out: Path, job: Job, task: Task, tolerance: float) -> dict[str, Any]:
    """Make an artifact that runs the checkpoint itself, and run it."""
    weights = [path for path in sorted(source.iterdir()) if ".safetensors" in path.suffixes]
    for path in weights:
        shutil.copyfile(path, out / path.name)
    Card(FORMAT, runtime={"eager": True}).write(out)
    copied = job.load(Artifact(FORMAT, out, "", {}))
    eager = hf.Eager(hf.checkpoint(source, task), task.outputs, task.input_kinds(source))
    return {
        "eager": True,
        "bytes": sum(path.stat().st_size for path in weights),
        "parity": dict(parity.parity(copied, eager, source, task, tolerance, WHERE)),
    }
