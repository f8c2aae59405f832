"""From a checkpoint to TorchScript that runs without Python; where a trace would lie, to the checkpoint and why."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline import compare
from cpu_pipeline.artifact import Artifact, Card
from cpu_pipeline.backends import hf
from cpu_pipeline.backends.torchscript import FORMAT, MODEL
from cpu_pipeline.batches import pad_id
from cpu_pipeline.errors import RecipeError, StageFailed
from cpu_pipeline.stage import Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._trace import FAILURES, trace

if TYPE_CHECKING:
    from cpu_pipeline.task import Task

PLACES = (".debug_pkl", "/.data/serialization_id")
"""How files end that torch.jit.save adds to the model: where its source lay, stack traces, and a digest of those."""
NUMBERED = re.compile(rb"___torch_mangle_(\d+)")
"""How TorchScript tells classes apart: with a counter of the process."""
WHERE = "export.torchscript"


class ExportTorchscript(Stage):
    """Trace and freeze a checkpoint as TorchScript for Python and C++, checked against eager torch."""

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

    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        """Trace, freeze, write, load what was written, and compare; on failure do as `on_failure` says.

        Raises:
            StageFailed: the model cannot be traced or its trace answers differently, and `on_failure` is `fail`.
        """
        if job.task is None:
            raise RecipeError(f"{WHERE}: the recipe names no task; it says which head to export")
        source = inputs["model"].path
        hf.carry(source, out)
        fears: list[str] = []
        try:
            facts = self._script(source, out, job, job.task, fears)
        except StageFailed as error:
            if self.on_failure == "fail":
                hint = "set `on_failure: eager` to ship the checkpoint itself, or take another export"
                raise StageFailed(f"{error}; {hint}") from error
            (out / MODEL).unlink(missing_ok=True)
            # The directory's name changes from run to run.
            reason = str(error).replace(str(out), FORMAT)
            facts = {**_keep(source, out, job, job.task, self.tolerance), "reason": reason}
        return {**facts, "tracer_warnings": fears}

    def _script(self, source: Path, out: Path, job: Job, task: Task, fears: list[str]) -> dict[str, Any]:
        """Write model.pt and prove it."""
        import torch

        module = hf.checkpoint(source, task)
        names = hf.inputs_of(module)
        module = module.to(getattr(torch, self.dtype))
        write(script(module, names, task.outputs, self.optimize_for_inference, fears), out / MODEL)
        Card(FORMAT, runtime={"inputs": list(names), "outputs": list(task.outputs)}).write(out)
        written = job.load(Artifact(FORMAT, out, "", {}))
        eager = hf.Eager(module, task.outputs)
        facts: dict[str, Any] = {
            "eager": False,
            "bytes": (out / MODEL).stat().st_size,
            "parity": dict(compare.parity(written, eager, source, task, self.tolerance, WHERE)),
        }
        if self.dtype != "float32":
            exact = hf.Eager(hf.checkpoint(source, task), task.outputs)
            batches = compare.synthetic(source)
            facts["rounding"] = dict(compare.compare(written, exact, batches, pad_id(source), task.per_token))
        return facts

    def tells(self, facts: Facts) -> list[str]:
        """Say aloud that the artifact is no TorchScript, and why; else how far rounding went, if it did."""
        if facts.get("eager"):
            return [
                "**Not TorchScript: this artifact runs eagerly in float32, from the checkpoint, and needs Python and "
                f"transformers.** The trace was given up: {' '.join(str(facts.get('reason', '')).split())}"
            ]
        if "rounding" in facts:
            gap, top = facts["rounding"]["max_abs"], facts["rounding"]["same_top"]
            return [f"Rounding to {self.dtype} moves outputs by up to {gap:.3g}; the top answer stays for {top:.1%}."]
        return []


def script(module: Any, names: tuple[str, ...], outputs: tuple[str, ...], optimize: bool, fears: list[str]) -> Any:
    """Trace and freeze the module that `hf.checkpoint` gave; `fears` gets the tracer's warnings.

    Raises:
        StageFailed: it does something that a trace cannot hold.
    """
    import torch

    try:
        frozen = torch.jit.freeze(trace(module, names, outputs, fears))
        return torch.jit.optimize_for_inference(frozen) if optimize else frozen
    except FAILURES as error:
        raise StageFailed(f"{WHERE}: {type(module).__name__} cannot be traced: {_line(error)}") from error


def write(module: Any, path: Path) -> None:
    """Save a ScriptModule as a file whose bytes depend on the model alone.

    torch.jit.save adds where the source lay and its stack traces, and names that count what was traced before in this
    process; without the first and with the second counted from 0, Python and C++ load it all the same.
    """
    import torch

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        raw = Path(scratch) / "raw.pt"
        try:
            torch.jit.save(module, raw)
        except RuntimeError as error:
            raise StageFailed(
                f"{WHERE}: torch cannot save this module: {' '.join(str(error).split())[:300]}"
            ) from error
        _tidy(raw, path)


def _tidy(raw: Path, path: Path) -> None:
    numbers: dict[bytes, int] = {}

    def renumber(found: re.Match[bytes]) -> bytes:
        return b"___torch_mangle_%d" % numbers.setdefault(found[1], len(numbers))

    with zipfile.ZipFile(raw) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            if name.endswith(PLACES):
                continue
            inside = name.partition("/")[2]
            plain = NUMBERED.sub(renumber, inside.encode()).decode()
            entry = zipfile.ZipInfo(f"{path.stem}/{plain}")  # dated 1980, as torch does
            data = before.read(name)
            after.writestr(entry, NUMBERED.sub(renumber, data) if inside.endswith((".py", ".pkl")) else data)


def _keep(source: Path, out: Path, job: Job, task: Task, tolerance: float) -> dict[str, Any]:
    """Make an artifact that runs the checkpoint itself, and run it."""
    weights = [path for path in sorted(source.iterdir()) if ".safetensors" in path.suffixes]
    for path in weights:
        shutil.copyfile(path, out / path.name)
    Card(FORMAT, runtime={"eager": True}).write(out)
    kept = job.load(Artifact(FORMAT, out, "", {}))
    eager = hf.Eager(hf.checkpoint(source, task), task.outputs)
    return {
        "eager": True,
        "bytes": sum(path.stat().st_size for path in weights),
        "parity": dict(compare.parity(kept, eager, source, task, tolerance, WHERE)),
    }


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
