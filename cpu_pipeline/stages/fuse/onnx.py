"""Replace patterns of an ONNX graph by ONNX Runtime's fused operators, and insist that it happened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.backends import _structure
from cpu_pipeline.backends._external import screen
from cpu_pipeline.backends.onnx import DATA, FORMAT, MODEL
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages import _onnx
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison

FUSED = ("Attention", "SkipLayerNormalization", "BiasGelu")
"""The fused operators whose counts are facts."""
LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
"""What configurations call the number of attention layers."""


class FuseFacts(Facts):
    """What was fused."""

    attention: Count = Field(alias="Attention")
    """Nodes of the fused operator Attention."""
    skip_layer_norm: Count = Field(alias="SkipLayerNormalization")
    """Nodes of SkipLayerNormalization."""
    bias_gelu: Count = Field(alias="BiasGelu")
    """Nodes of BiasGelu."""
    attention_expected: Count
    """Attention nodes that were required."""
    nodes_before: Count
    """Nodes of the graph before fusing."""
    nodes: Count
    """Nodes of the graph now."""
    operators: dict[str, Count]
    """Operator -> number of nodes."""
    bytes: Count
    """Bytes of graph and weights."""
    parity: Comparison
    """Distance from the graph's outputs before fusing."""


class FuseOnnx(Stage):
    """Fuse attention, layer norms and GELUs for ONNX Runtime with onnxscript's rewriter, and count what was fused."""

    facts_model: ClassVar = FuseFacts
    takes: ClassVar = {"model": {FORMAT}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("onnx", "onnx_ir", "onnxscript")

    attention: Annotated[int, Field(ge=0)] | Literal["all"] = "all"
    """Fused Attention nodes to insist on: as many as config.json has layers, or a number (0 accepts none)."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest absolute difference from the answers before fusing, at several lengths, padded, that may pass."""

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare both graphs."""
        return {FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> FuseFacts:
        """Fuse, count, copy what belongs to the model, and compare."""
        if job.task is None:
            raise RecipeError("fuse.onnx: the recipe names no task; it says which answers to compare")
        source = inputs["model"]
        expected = layers(source.path) if self.attention == "all" else self.attention
        fuse(source.path, out)
        counts = _onnx.count_operators(out / MODEL)
        require_fused(counts, expected)
        repo_files.carry(source.path, out)
        card = Card.read(source.path, FORMAT)
        card.write(out)
        candidate, reference = job.load(Artifact(FORMAT, out, "", {})), job.load(source)
        compared = parity.parity(candidate, reference, out, job.task, self.tolerance, "fuse.onnx")
        return FuseFacts(
            **{name: counts.get(name, 0) for name in FUSED},
            attention_expected=expected,
            nodes_before=sum(_onnx.count_operators(source.path / MODEL).values()),
            nodes=sum(counts.values()),
            operators=counts,
            bytes=_onnx.size(out),
            parity=Comparison.model_validate(compared),
        )


def fuse(source: Path, out: Path) -> None:
    """Write the fused form of the graph in `source` into `out`; the bytes depend on the graph alone."""
    import onnx_ir as ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    screen(source / MODEL)
    model, _ = optimize_for_ort(ir.load(source / MODEL))
    _onnx.tidy(model)
    _onnx.save(model, out, 0 if (source / DATA).is_file() else _onnx.INLINE)


def layers(model: Path) -> int:
    """Read how many attention layers there are to fuse: those that config.json names.

    Of a pruned checkpoint (structure.json) a layer with one head stays MultiHeadAttention, which is no less a kernel.

    Raises:
        RecipeError: it does not say.
    """
    if (widths := _structure.read(model)) is not None:
        return sum(width.heads > 1 for width in widths)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for name in LAYERS:
        if isinstance(config.get(name), int):
            return int(config[name])
    raise RecipeError(
        f"fuse.onnx: config.json has none of {', '.join(LAYERS)}; set `attention` to the number of layers to fuse"
    )


def require_fused(counts: Mapping[str, int], expected: int) -> None:
    """Fail when fewer attention layers were fused than expected.

    Raises:
        StageFailed: says what was fused and how to accept it.
    """
    fused = counts.get("Attention", 0)
    if fused < expected:
        found = ", ".join(f"{name} {counts.get(name, 0)}" for name in FUSED)
        raise StageFailed(
            f"fuse.onnx: {fused} of {expected} attention layers were fused ({found}): the rewriter does not know this "
            f"graph; export it with opset 18, or set `attention: {fused}` to accept it"
        )
