"""An ONNX model that ONNX Runtime quantized, with any of its operators left in float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends.onnx import MODEL, Running, open_session
from cpu_pipeline.stages.quantize._variants import Operator

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head, Session

Quantize = Callable[[Sequence[str], Path], None]
"""Writes the quantized model, but for the nodes of these names, into an empty directory."""


class OnnxVariants:
    """The float model and its quantizer, which runs anew for every variant: ranges were found before."""

    def __init__(
        self,
        source: Path,
        quantize: Quantize,
        types: Sequence[str],
        skipped: Sequence[str],
        head: Head | None,
        threads: int,
    ) -> None:
        """Take what makes a variant.

        Args:
            source: directory of the float model.
            quantize: writes a variant.
            types: types of the operators that are quantized.
            skipped: nodes that are never quantized.
            head: the task; without one no variant can be opened.
            threads: threads to answer with; 0 lets ONNX Runtime choose.
        """
        self._source, self._quantize = source, quantize
        self.types, self.skipped = tuple(types), frozenset(skipped)
        self._head, self._threads = head, threads

    @cached_property
    def operators(self) -> Sequence[Operator]:
        """List the nodes that are quantized, in the order of the graph."""
        return tuple(_operators(self._source / MODEL, self.types, self.skipped))

    def original(self) -> Session:
        """Open the float model."""
        return self._open(self._source)

    def keeping(self, names: Set[str]) -> Session:
        """Open the quantized model with these operators in float."""
        with tempfile.TemporaryDirectory(prefix="cpu-pipeline-") as folder:
            self.write(names, Path(folder))
            return self._open(Path(folder))

    def write(self, names: Set[str], out: Path) -> None:
        """Write that model."""
        self._quantize(sorted(self.skipped | names), out)

    def _open(self, folder: Path) -> Session:
        return Running(
            open_session(folder / MODEL, self._threads), tuple(self._head.outputs) if self._head is not None else ()
        )


def _operators(model: Path, types: Sequence[str], skipped: Set[str]) -> list[Operator]:
    """List the nodes that read stored weights, in the order of the graph."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    stored = {tensor.name: _size(tensor.dims) for tensor in graph.initializer if len(tensor.dims) > 1}
    return [
        Operator(node.name, node.op_type, sum(stored.get(name, 0) for name in node.input))
        for node in graph.node
        if node.op_type in types and node.name not in skipped and any(name in stored for name in node.input)
    ]


def _size(shape: Any) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
