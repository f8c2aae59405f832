"""Store an ONNX model's weights in 8 bits and multiply in integers, through ONNX Runtime's quantizers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.backends._external import screen
from cpu_pipeline.backends.onnx import DATA, FORMAT, MODEL
from cpu_pipeline.core import host, repo_files
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.figures import Note, Table
from cpu_pipeline.stages import _onnx
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages.quantize import _healing, _ranges
from cpu_pipeline.stages.quantize._accuracy import Accuracy
from cpu_pipeline.stages.quantize._onnx_variants import OnnxVariants

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

DEFAULTS = {"dynamic": ("MatMul", "Gather"), "static": ("MatMul", "Gemm")}
"""Operators that are quantized when the recipe names none."""
INTEGER = {
    "MatMulInteger": "MatMul", "ConvInteger": "Conv", "QAttention": "Attention", "DynamicQuantizeLSTM": "LSTM",
    "QEmbedLayerNormalization": "EmbedLayerNormalization",
}  # fmt: skip
"""Integer operator -> the float operator it stands for."""


class OnnxQuantizeFacts(Facts):
    """What was quantized."""

    bytes_before: Count
    """Bytes of graph and weights before."""
    bytes: Count
    """Bytes of graph and weights now."""
    quantized: dict[str, Count]
    """Operator -> number of its nodes that compute on 8-bit weights."""
    skipped: Count
    """Nodes that `skip_nodes` and `accuracy` left in float."""
    reduce_range: bool
    """Whether weights keep to 7 bits."""
    operators: dict[str, Count]
    """Operator of the written graph -> number of nodes."""
    healing: _healing.HealingFacts | None = None
    """With `accuracy` alone: what stayed float for it."""


class QuantizeOnnx(Stage):
    """Quantize an ONNX model to 8 bits with ONNX Runtime, with ranges found as it runs or from calibration rows."""

    facts_model: ClassVar = OnnxQuantizeFacts
    takes: ClassVar = {"model": {FORMAT}}
    reads: ClassVar = frozenset({"task", "target", "data.calibration?", "data.selection?"})
    packages: ClassVar = ("onnx", "onnx_ir", "onnxruntime", "numpy", "tokenizers")
    quantizes: ClassVar = True
    remedies: ClassVar = (
        "accuracy",
        "per_channel",
        "skip_nodes",
        "skip_operators",
        "mode",
        "calibration",
        "samples",
        "reduce_range",
    )

    mode: Literal["dynamic", "static"] = "dynamic"
    """`dynamic` measures each activation's range as the model runs; `static` fixes it from `data.calibration`."""
    weights: Literal["int8", "uint8"] = "int8"
    """Integer type of weights: int8 is symmetric around zero, uint8 is not."""
    activations: Literal["uint8", "int8"] = "uint8"
    """Integer type of activations in static mode; dynamic mode always takes uint8."""
    per_channel: bool = False
    """Give each output channel of a weight its own scale: closer to the original, hardly slower."""
    reduce_range: Literal["auto"] | bool = "auto"
    """Keep weights to 7 bits: `auto` does where the CPU lacks VNNI, whose older instructions overflow on 8."""
    operators: tuple[str, ...] = ()
    """Operator types to quantize; none named means MatMul and Gather (dynamic) or MatMul and Gemm (static).

    Fused graphs: the MatMul and Gather nodes that `fuse.onnx` leaves are quantized; its Attention nodes stay float,
    because the integer Attention of ONNX Runtime has no input for their mask.
    """
    skip_operators: tuple[str, ...] = ()
    """Operator types to leave in float."""
    skip_nodes: tuple[str, ...] = ()
    """Nodes to leave in float, by name or pattern (`*`, `?`, `[...]`), such as `*.output.dense/MatMul`."""
    calibration: _ranges.Method = "minmax"
    """Static: how an activation's range follows from what was seen: all of it, least entropy lost, or a percentile."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """Static, `calibration: percentile`: the percentage of an activation's values that its range holds."""
    samples: int = Field(default=128, ge=1)
    """Static: rows to calibrate with, spread evenly over `data.calibration`."""
    batch: int = Field(default=1, ge=1)
    """Static: sequences that run together, padded to the longest; 1 keeps padding out of the ranges."""
    accuracy: Accuracy | None = None
    """Leave as few operators in float as keep this accuracy on `data.selection`; ranks them on `data.calibration`."""

    @model_validator(mode="after")
    def _options_fit(self) -> QuantizeOnnx:
        if self.accuracy is not None and self.accuracy.method == "nncf":
            raise ValueError(
                "accuracy: `method: nncf` is for quantize.openvino, as NNCF quantizes nothing for ONNX Runtime here; "
                "leave it out, and operators are ranked and bisected"
            )
        return self

    def gives(self) -> str:
        """Name the format."""
        return FORMAT

    def asks(self) -> Set[str]:
        """Ask for calibration rows, and the task that encodes them, where they fix ranges or rank operators."""
        rows = {"task", "data.calibration"} if self.mode == "static" else set[str]()
        rows |= {"task", "data.calibration", "data.selection"} if self.accuracy is not None else set[str]()
        return {"target"} | rows

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say whether the task has the metric of `accuracy`."""
        return self.accuracy.misfits(task, model) if self.accuracy is not None else []

    def details(self, facts: OnnxQuantizeFacts) -> Sequence[Table | Note]:
        """Return what stayed float for `accuracy`."""
        return list(_healing.details(facts.healing)) if facts.healing is not None else []

    def host(self) -> Host:
        """Say that `reduce_range: auto` and calibration follow the instruction set."""
        return "isa"

    def run(self, inputs: Inputs, out: Path, job: Job) -> OnnxQuantizeFacts:
        """Quantize, count, and copy what belongs to the model."""
        import onnx_ir as ir

        source = inputs["model"].path
        healing = None
        with self.variants(source, out, job) as variants, tempfile.TemporaryDirectory(dir=out) as folder:
            names, quantized = set[str](), Path(folder)
            if self.accuracy is not None:
                healing = _healing.heal("quantize.onnx", variants, source, self.accuracy, job)
                names = set(healing.floats)
            variants.write(names, quantized)
            operators, skipped = variants.types, variants.skipped | names
            counts = _count_quantized(quantized / MODEL, operators)
            if not counts:
                raise StageFailed(
                    f"quantize.onnx: nothing was quantized: no {' or '.join(operators)} with weights of its own is "
                    "left in the graph; name other `operators` or skip fewer nodes"
                )
            model = ir.load(quantized / MODEL)
            _onnx.strip(model)
            _onnx.save(model, out)
        repo_files.carry(source, out)
        before = Card.read(source, FORMAT)
        reduce = self._reduces(job)
        needs = {*before.needs, *((host.VNNI,) if self.weights == "int8" and not reduce else ())}
        Card(FORMAT, tuple(sorted(needs)), before.runtime).write(out)
        return OnnxQuantizeFacts(
            bytes_before=_onnx.size(source),
            bytes=_onnx.size(out),
            quantized=dict(counts),
            skipped=len(skipped),
            reduce_range=reduce,
            operators=_onnx.count_operators(out / MODEL),
            healing=healing,
        )

    @contextlib.contextmanager
    def variants(self, source: Path, folder: Path, job: Job) -> Iterator[OnnxVariants]:
        """Find ranges once, and give the model with any operators left in float.

        Args:
            source: directory of the float model.
            folder: what is needed meanwhile goes into a directory of its own here.
            job: as of `run`.
        """
        screen(source / MODEL)
        operators, reduce = self._operators(), self._reduces(job)
        skipped = self._skipped(source, operators)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            # The quantizers write beside the file that they read, and an input is not to be written to.
            work = Path(made)
            for name in (MODEL, DATA):
                if (source / name).is_file():
                    shutil.copyfile(source / name, work / name)
            ranges = self._observe(work, job, source, operators) if self.mode == "static" else None

            def quantize(names: Sequence[str], into: Path) -> None:
                self._quantize(work, into, ranges, operators, list(names), reduce)

            yield OnnxVariants(source, quantize, operators, skipped, job.task, job.threads)

    def _reduces(self, job: Job) -> bool:
        return not host.has_vnni(job.isa) if self.reduce_range == "auto" else self.reduce_range

    def _operators(self) -> tuple[str, ...]:
        """List the operator types to quantize.

        Raises:
            RecipeError: ONNX Runtime cannot quantize one of them in this mode.
        """
        from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry

        known = sorted(IntegerOpsRegistry if self.mode == "dynamic" else QDQRegistry)
        wanted = self.operators or DEFAULTS[self.mode]
        for name in (*wanted, *self.skip_operators):
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(known)}"
                raise RecipeError(f"quantize.onnx: ONNX Runtime has no {self.mode} quantization of {name}: {hint}")
        return tuple(name for name in wanted if name not in self.skip_operators)

    def _skipped(self, source: Path, operators: Sequence[str]) -> list[str]:
        """List the nodes that the patterns of `skip_nodes` name.

        Raises:
            RecipeError: a pattern matches no node that would be quantized.
        """
        import onnx

        graph = onnx.load(source / MODEL, load_external_data=False).graph
        names = [node.name for node in graph.node if node.op_type in operators]
        skipped: set[str] = set()
        for pattern in self.skip_nodes:
            found = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
            if not found:
                near = get_close_matches(pattern, names, 3, cutoff=0.3) or names[:3]
                raise RecipeError(
                    f"quantize.onnx: skip_nodes: no {' or '.join(operators)} node is called {pattern!r}; "
                    f"near it: {', '.join(near)}"
                )
            skipped.update(found)
        return sorted(skipped)

    def _observe(self, work: Path, job: Job, source: Path, operators: Sequence[str]) -> Path:
        """Find the ranges of activations on calibration rows; return the file with them."""
        if job.task is None or "calibration" not in job.data:
            raise RecipeError("quantize.onnx: `mode: static` needs data.calibration and a task in the recipe")
        names = [value.name for value in _graph_inputs(work / MODEL)]
        feed = _ranges.feed(job.task, source, job.data["calibration"], self.samples, self.batch, names)
        return _ranges.observe(work / MODEL, feed, operators, self.calibration, self.percentile, work, job.progress)

    def _quantize(
        self, work: Path, out: Path, ranges: Path | None, operators: Sequence[str], skipped: list[str], reduce: bool
    ) -> None:
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_dynamic,
            quantize_static,
        )

        types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
        shared: dict[str, Any] = {
            "op_types_to_quantize": list(operators),
            "per_channel": self.per_channel,
            "reduce_range": reduce,
            "weight_type": types[self.weights],
            "nodes_to_exclude": skipped,
            "use_external_data_format": (work / DATA).is_file(),
        }
        if self.mode == "dynamic":
            quantize_dynamic(work / MODEL, out / MODEL, extra_options={"MatMulConstBOnly": True}, **shared)
            return
        quantize_static(
            work / MODEL,
            out / MODEL,
            quant_format=QuantFormat.QDQ,
            activation_type=types[self.activations],
            calibrate_method=CalibrationMethod[_METHODS[self.calibration]],
            calibration_cache_path=ranges,
            # A product of two activations (attention scores) and every result stay float: 8 bits cost most there.
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(operators)},
            **shared,
        )


_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def _graph_inputs(model: Path) -> Sequence[Any]:
    import onnx

    return list(onnx.load(model, load_external_data=False).graph.input)


def _count_quantized(model: Path, operators: Set[str] | Sequence[str]) -> Mapping[str, int]:
    """Count the nodes that now compute on 8-bit weights, by the operator they were.

    Such a node is an integer operator, or reads a DequantizeLinear of a stored weight, or (Gather) is read by one.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    weights = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored}
    read = {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in INTEGER:
            counts[INTEGER[node.op_type]] += 1
        elif node.op_type in operators and (weights & set(node.input) or read & set(node.output)):
            counts[node.op_type] += 1
    return dict(sorted(counts.items()))
