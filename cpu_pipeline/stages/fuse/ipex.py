"""Let Intel Extension for PyTorch fuse a traced checkpoint, and insist that each fusion it promises happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.backends import hf
from cpu_pipeline.backends.ipex import ENVIRONMENT, FORMAT, NEEDS, register
from cpu_pipeline.backends.torchscript import MODEL
from cpu_pipeline.core import host, repo_files
from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.figures import Note
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime import parity
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages._module import FAILURES
from cpu_pipeline.stages._trace import trace, write

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.tasks._base import Task

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}
"""Largest absolute difference of an output from eager float32 that the arithmetic's type explains."""
OPERATORS = {
    "ipex::mha_scores_calc": "attention",
    "ipex::mha_scores_calc_v2": "attention",
    "ipex::distil_mha_scores_calc": "attention",
    "ipex_prepack::linear_add_run": "linear_add",
    "ipex_prepack::linear_gelu_run": "linear_gelu",
    "ipex::add_layernorm": "add_layernorm",
}
"""Operator of IPEX -> the fusion that it is the sign of."""
SPLITS = ("ipex::split_tensor", "aten::split_with_sizes")
"""What parts the answer of concatenated linear layers again."""
FUSIONS = ("attention", "concat_linear", "linear_add", "linear_gelu", "add_layernorm")

Expected = Annotated[int, Field(ge=0)] | Literal["all"]


class IpexFacts(Facts):
    """What IPEX fused."""

    dtype: str
    """Type of weights and arithmetic."""
    attention: Count
    """Layers whose scores, mask and softmax are one operator."""
    concat_linear: Count
    """Layers whose query, key and value are one linear layer."""
    linear_add: Count
    """Linear layers with an add inside."""
    linear_gelu: Count
    """Linear layers with a GELU inside."""
    add_layernorm: Count
    """Layer norms with an add inside."""
    expected: dict[str, Count]
    """Fusion, as the five above -> how many were required."""
    operators: dict[str, Count]
    """Operator of the executed graph -> number of nodes."""
    bytes: Count
    """Bytes of graph and weights."""
    parity: Comparison
    """Distance from eager float32 outputs."""


class FuseIpex(Stage):
    """Fuse a checkpoint with Intel Extension for PyTorch, as TorchScript, and insist on each fusion."""

    facts_model: ClassVar = IpexFacts
    remedies: ClassVar = ("dtype",)
    takes: ClassVar = {"model": {"hf"}}
    reads: ClassVar = frozenset({"task.head"})
    packages: ClassVar = ("torch", "intel_extension_for_pytorch", "transformers", "safetensors")

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and arithmetic; bfloat16 needs AVX-512, and is fast with AVX-512 BF16 or AMX."""
    kernels: Literal["onednn", "mkl"] = "onednn"
    """Library of float32 linear layers: `onednn` takes adds and GELUs inside; `mkl`, the default of IPEX, does not."""
    attention_kernel: Literal["ipex", "torch"] = "ipex"
    """`ipex` fuses scores, mask and softmax; `torch` keeps scaled_dot_product_attention, faster on long texts."""
    attention: Expected = "all"
    """Layers whose scores, mask and softmax are one operator, at least; `all` is every layer (with `torch`, none)."""
    concat_linear: Expected = "all"
    """Layers whose query, key and value are computed by one linear layer, at least."""
    linear_add: Expected = "all"
    """Linear layers with the residual added inside, at least; `all` is two a layer (none with `kernels: mkl`)."""
    linear_gelu: Expected = "all"
    """Linear layers with the GELU inside, at least; `all` is every GELU (none with `kernels: mkl`)."""
    add_layernorm: Expected = "all"
    """Layer norms with an add inside, at least; `all` is those after an add that no linear layer took."""
    tolerance: float | None = Field(default=None, gt=0)
    """Largest absolute difference from eager float32, at several lengths, padded; left out, 1e-4, in bfloat16 0.2."""

    @model_validator(mode="after")
    def _options_fit(self) -> FuseIpex:
        if self.kernels == "mkl" and self.dtype != "float32":
            raise ValueError("kernels: `mkl` computes float32 alone; leave it out, or set `dtype: float32`")
        return self

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def host(self) -> Host:
        """Say that what is computed and compared depends on the instruction sets."""
        return "isa"

    def environment(self, backends: Mapping[str, str]) -> str:
        """Run where IPEX is; the checkpoint answers from its own environment."""
        return ENVIRONMENT

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Compare through both."""
        return {"hf", FORMAT}

    def run(self, inputs: Inputs, out: Path, job: Job) -> IpexFacts:
        """Optimize, trace, freeze, write; then open what was written, count what was fused in it, and compare.

        Raises:
            StageFailed: it cannot be traced, a fusion did not happen, or it answers differently.
            BackendMissing: this CPU lacks what `dtype` needs.
        """
        if job.task is None:
            raise RecipeError("fuse.ipex: the recipe names no task; it says which head to keep")
        if lacking := host.missing(NEEDS[self.dtype]):
            raise BackendMissing(
                f"fuse.ipex: `dtype: {self.dtype}` needs {', '.join(lacking)}, which this CPU lacks; "
                "use float32, or export.openvino"
            )
        source = inputs["model"]
        register(source.path)
        repo_files.carry(source.path, out)
        module, names = self._frozen(source.path, job.task)
        wanted = self.expected(promised(operators(module.graph), self.kernels, self.attention_kernel))
        write(module, out / MODEL, "fuse.ipex")
        del module
        runtime = {"inputs": list(names), "outputs": list(job.task.outputs), "dtype": self.dtype}
        Card(FORMAT, NEEDS[self.dtype], runtime).write(out)
        candidate = job.load(Artifact(FORMAT, out, "", {}))
        graph = executed(candidate, out, job.task)
        found = fusions(graph)
        require(found, wanted)
        tolerance = self.tolerance or TOLERANCE[self.dtype]
        compared = parity.parity(candidate, job.load(source), out, job.task, tolerance, "fuse.ipex")
        return IpexFacts(
            dtype=self.dtype,
            **{name: found[name] for name in FUSIONS},
            expected=wanted,
            operators=dict(sorted(operators(graph).items())),
            bytes=(out / MODEL).stat().st_size,
            parity=Comparison.model_validate(compared),
        )

    def expected(self, promise: Mapping[str, int]) -> dict[str, int]:
        """Return how many of each fusion to require: name, as in FUSIONS -> number.

        Args:
            promise: how many IPEX promises for the graph, by the same names.
        """
        options = {name: getattr(self, name) for name in FUSIONS}
        return {name: promise[name] if number == "all" else number for name, number in options.items()}

    def details(self, facts: IpexFacts) -> list[Note]:
        """Return how often each fusion was made."""
        counts = ", ".join(f"{name} {getattr(facts, name)}" for name in FUSIONS)
        return [Note(f"Fused by IPEX in {facts.dtype}: {counts}.")]

    def _frozen(self, source: Path, task: Task) -> tuple[Any, tuple[str, ...]]:
        """Trace and freeze what ipex.optimize makes of the checkpoint; with it, the names of its inputs."""
        import intel_extension_for_pytorch as ipex
        import torch

        model = hf.checkpoint(source, task)
        if self.attention_kernel == "ipex":
            # IPEX knows attention by its products and its softmax; torch's one operator for all of it stays as it is.
            model.set_attn_implementation("eager")
        names = hf.inputs_of(model, task.input_kinds(source))
        model = ipex.optimize(
            model,
            dtype=getattr(torch, self.dtype),
            inplace=True,
            auto_kernel_selection=self.kernels == "onednn",
        )
        try:
            return torch.jit.freeze(trace(model, names, task.outputs)), names
        except FAILURES as error:
            raise StageFailed(
                f"fuse.ipex: {type(model).__name__} cannot be traced: {one_line(error)}; "
                "use export.openvino or compile.aoti"
            ) from error


def executed(session: Session, model: Path, task: Task) -> Any:
    """Run a warm session once; return the graph that torch really ran, with everything that was fused in it."""
    import torch

    [batch] = task.examples(model, [(2, 12)])
    session(pad(batch, session.inputs, task.input_kinds(model)))
    return torch.jit.last_executed_optimized_graph()


def operators(graph: Any) -> Counter[str]:
    """Count a TorchScript graph's operators, those of inner blocks and graphs too."""
    return Counter(node.kind() for node in _nodes(graph))


def fusions(graph: Any) -> dict[str, int]:
    """Count the fusions in a graph that torch ran: name, as in FUSIONS -> number."""
    counts = dict.fromkeys(FUSIONS, 0)
    for node in _nodes(graph):
        if node.kind() in OPERATORS:
            counts[OPERATORS[node.kind()]] += 1
        elif node.kind() in SPLITS:
            counts["concat_linear"] += node.inputsAt(0).node().kind().startswith("ipex_prepack::")
    return counts


def promised(counts: Mapping[str, int], kernels: str, attention_kernel: str) -> dict[str, int]:
    """Count what IPEX promises to fuse in a frozen graph.

    An add between a linear layer and a layer norm goes to one of them: to the linear layer with oneDNN, else to the
    norm. The sum of the embeddings goes to the norm always.

    Args:
        counts: operator -> number of nodes, before anything is fused.
        kernels: `onednn` or `mkl`, as the option.
        attention_kernel: `ipex` or `torch`, as the option.

    Returns:
        Name of a fusion, as in FUSIONS -> number.
    """
    layers = counts.get("aten::softmax", 0) + counts.get("aten::scaled_dot_product_attention", 0)
    inside = kernels == "onednn"
    return {
        "attention": layers if attention_kernel == "ipex" else 0,
        "concat_linear": layers,
        "linear_add": 2 * layers if inside else 0,
        "linear_gelu": counts.get("aten::gelu", 0) if inside else 0,
        "add_layernorm": 1 if inside else 2 * layers + 1,
    }


def require(found: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Fail when a fusion happened less often than it should.

    Raises:
        StageFailed: says what was fused and how to accept it.
    """
    short = {name: found[name] for name in FUSIONS if found[name] < wanted[name]}
    if short:
        lacks = ", ".join(f"{name} {number} of {wanted[name]}" for name, number in short.items())
        accept = ", ".join(f"`{name}: {number}`" for name, number in short.items())
        raise StageFailed(f"fuse.ipex: IPEX fused {lacks}: it does not know this graph; set {accept} to accept it")


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))
