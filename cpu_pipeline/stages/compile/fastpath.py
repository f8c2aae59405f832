"""Make an encoder checkpoint that computes no padding: the successor of BetterTransformer's fast path."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import fastpath, hf
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.2}


class FastpathFacts(Facts):
    """What was written."""

    implementation: str
    """`packed` or `nested`."""
    dtype: str
    """Type of weights and arithmetic."""
    bytes: Count
    """Bytes of the weights."""
    parity: Comparison
    """Distance from eager float32 outputs."""


class CompileFastpath(Stage):
    """Store an encoder checkpoint to be run on real tokens alone, and compare its answers with eager torch."""

    facts_model: ClassVar = FastpathFacts
    remedies: ClassVar = ("dtype",)
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("torch", "transformers", "safetensors")

    implementation: Literal["packed", "nested"] = "packed"
    """`packed` runs every layer over the real tokens; `nested` is torch.nn.TransformerEncoderLayer's own fast path."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What weights are stored and computed in; bfloat16 is slow on a CPU without instructions for it."""
    tolerance: float | None = Field(default=None, gt=0)
    """Largest absolute difference from eager float32 allowed; left out, 1e-5, and 0.2 in bfloat16."""

    def gives(self) -> str:
        """Name the format."""
        return fastpath.FORMAT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", fastpath.FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> FastpathFacts:
        """Check that the model is an encoder we know, store its weights, and compare, with padding.

        Raises:
            StageFailed: it is none, or answers differently.
        """
        if job.task is None:
            raise RecipeError("compile.fastpath: the recipe names no task; it says which head to keep")
        source = inputs["model"].path
        model = hf.checkpoint(source, job.task)
        fastpath.check(model.config, job.task, self.implementation)
        repo_files.carry(source, out)
        write(model, job.task, out, self.dtype)
        # torch computes bfloat16 on any CPU, so nothing is needed: without instructions for it the speed suffers alone.
        Card(fastpath.FORMAT, runtime={"implementation": self.implementation, "dtype": self.dtype}).write(out)
        candidate = job.load(Artifact(fastpath.FORMAT, out, "", {}))
        reference = hf.Eager(model, job.task.outputs)
        tolerance = self.tolerance or TOLERANCE[self.dtype]
        compared = parity.parity(candidate, reference, source, job.task, tolerance, "compile.fastpath")
        return FastpathFacts(
            implementation=self.implementation,
            dtype=self.dtype,
            bytes=(out / fastpath.MODEL).stat().st_size,
            parity=Comparison.model_validate(compared),
        )


def write(model: Any, task: Task, out: Path, dtype: str) -> None:
    """Write the weights that the task reads as safetensors; the bytes depend on nothing else.

    Args:
        model: what `hf.checkpoint` returned.
        task: says whether the pooler is read.
        out: directory to write into.
        dtype: type of the floats, as torch spells it.
    """
    import torch
    from safetensors.torch import save_file

    wanted = getattr(torch, dtype)
    weights = {
        name: (value.to(wanted) if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
        # The pooler above a bare encoder is made up where the checkpoint has none, and no output is made with it.
        if task.auto_class != "AutoModel" or not name.startswith("pooler.")
    }
    save_file(weights, out / fastpath.MODEL, metadata={"format": "pt"})
