"""An OpenVINO model that NNCF quantized, with any of its operators set back to float.

NNCF leaves weights as floats behind FakeQuantize when it is asked to; an operator becomes float when what it reads is
taken from before its FakeQuantize nodes, and its bias is the float model's again.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import openvino
from cpu_pipeline.stages.quantize._variants import Operator

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head, Session

QUANTIZER = "FakeQuantize"
PASSIVE = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert", "Broadcast", "StridedSlice", "Slice"})
"""What moves values and computes nothing: a quantizer before it stands for one after it."""


class OpenvinoVariants:
    """The quantized model, which is never changed itself: every variant is a copy."""

    def __init__(
        self, original: Any, quantized: Any, settings: dict[str, Any], head: Head | None, threads: int
    ) -> None:
        """Find the quantized operators.

        Args:
            original: the float `openvino.Model`.
            quantized: the same after NNCF, weights still behind FakeQuantize.
            settings: how it is compiled, besides what every model of ours is.
            head: the task.
            threads: threads to answer with; 0 lets OpenVINO choose.
        """
        self._original, self._quantized = original, quantized
        self._settings, self._head, self._threads = settings, head, threads
        self._biases = {node.get_friendly_name(): node for node in original.get_ordered_ops()}
        self.operators = tuple(operators(quantized))

    def original(self) -> Session:
        """Open the float model."""
        return openvino.open_model(self._original, self._settings, self._head, self._threads)

    def keeping(self, names: Set[str]) -> Session:
        """Open the quantized model with these operators in float."""
        return openvino.open_model(self.model(names), self._settings, self._head, self._threads)

    def write(self, names: Set[str], out: Path) -> None:
        """Write that model."""
        openvino.write(self.model(names), out)

    def model(self, names: Set[str]) -> Any:
        """Return a copy with these operators in float and the weights of the others as integers."""
        copy = self._quantized.clone()
        for node in copy.get_ordered_ops():
            if node.get_friendly_name() in names:
                for port, quantizer in list(_quantizers(node)):
                    port.replace_source_output(quantizer.input_value(0))
                self._restore_bias(node)
        copy.validate_nodes_and_infer_types()
        compress(copy)
        return copy

    def _restore_bias(self, node: Any) -> None:
        """Give the bias of an operator its original value; one that NNCF put in was none, and becomes zero."""
        import numpy as np

        opset = openvino.runtime().opset13
        for port in node.output(0).get_target_inputs():
            adding = port.get_node()
            if adding.get_type_name() != "Add":
                continue
            other = adding.input(1 - port.get_index())
            corrected = other.get_source_output().get_node()
            if corrected.get_type_name() != "Constant":
                continue
            before = self._biases.get(adding.get_friendly_name())
            value = np.zeros_like(corrected.get_data())
            if before is not None:
                original = before.input_value(other.get_index()).get_node()
                if original.get_type_name() != "Constant":
                    continue
                value = original.get_data()
            other.replace_source_output(opset.constant(value).output(0))


def compress(model: Any) -> None:
    """Turn the weights behind FakeQuantize nodes into integers, in place."""
    from openvino._offline_transformations import compress_quantize_weights_transformation

    compress_quantize_weights_transformation(model)


def operators(model: Any) -> Iterator[Operator]:
    """List what reads a FakeQuantize and computes, in the order of the graph."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in (QUANTIZER, *PASSIVE, "Result"):
            continue
        if quantizers := [quantizer for _, quantizer in _quantizers(node)]:
            sizes = (_weights(quantizer) for quantizer in quantizers)
            yield Operator(node.get_friendly_name(), node.get_type_name(), sum(sizes))


def _quantizers(node: Any) -> Iterator[tuple[Any, Any]]:
    """Find the quantizers of what a node reads: the input that reads each, of the node or of what stands between."""
    for port in node.inputs():
        reader, source = port, port.get_source_output().get_node()
        while source.get_type_name() in PASSIVE:
            reader = source.input(0)
            source = reader.get_source_output().get_node()
        if source.get_type_name() == QUANTIZER:
            yield reader, source


def _weights(quantizer: Any) -> int:
    """Count the elements of the weights that a quantizer rounds; 0 where it rounds activations."""
    source = quantizer.input_value(0).get_node()
    while source.get_type_name() in PASSIVE:
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        return 0
    size = 1
    for length in source.shape:
        size *= length
    return size
