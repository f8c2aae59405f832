"""Digest what a graph computes, independent of the names and the order of its nodes and values.

The digest of an input is that of its position and type; of a constant, that of its bytes; of an output of a node, that
of the operator, the attributes and the digests of the node's inputs. Two graphs of equal digests compute the same, node
for node. Different graphs may compute the same, too: `validate.agreement` compares outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import openvino as ov_backend
from cpu_pipeline.backends.onnx import MODEL
from cpu_pipeline.backends.openvino import BIN, XML
from cpu_pipeline.core.artifact import Artifact


def graph_digest(artifact: Artifact) -> str | None:
    """Digest what an artifact's graph computes (sha256, hex); None for formats whose graph cannot be read."""
    match artifact.format:
        case "onnx":
            return _onnx(artifact.path / MODEL)
        case "openvino":
            return _openvino(artifact.path)
        case _:
            return None


def _digest(*parts: object) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()


def _onnx(path: Path) -> str:
    """Digest an ONNX model: operator sets, functions, and its graph."""
    import onnx

    model = onnx.load(path)
    versions = sorted((opset.domain, opset.version) for opset in model.opset_import)
    functions = sorted(
        (
            each.domain,
            each.name,
            _body(each.node, {name: f"input {i}" for i, name in enumerate(each.input)}, each.output),
        )
        for each in model.functions
    )
    return _digest(versions, functions, _graph(model.graph, {}))


def _graph(graph: Any, outside: Mapping[str, str]) -> str:
    """Digest a graph; `outside` has the digests of the values that a subgraph may use."""
    import onnx

    known = dict(outside)
    for position, value in enumerate(graph.input):
        kind = value.type.tensor_type
        known[value.name] = _digest(
            "input", position, kind.elem_type, [side.dim_value or "any" for side in kind.shape.dim]
        )
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        known[tensor.name] = _digest("constant", tensor.data_type, list(tensor.dims), array.tobytes())
    return _body(graph.node, known, [value.name for value in graph.output])


def _body(nodes: Any, known: dict[str, str], outputs: Any) -> str:
    """Digest the outputs of nodes; `known` has the digests of the values that they take."""
    known.setdefault("", "nothing")  # an optional input that is absent
    for node in nodes:  # in topological order: the format requires it
        digest = _digest(
            node.domain, node.op_type, [known[name] for name in node.input],
            sorted((each.name, _attribute(each, known)) for each in node.attribute),
        )  # fmt: skip
        known |= {name: _digest(digest, position) for position, name in enumerate(node.output)}
    return _digest([known[name] for name in outputs])


def _attribute(attribute: Any, known: Mapping[str, str]) -> str:
    import onnx

    if attribute.type == onnx.AttributeProto.GRAPH:
        return _graph(attribute.g, known)
    if attribute.type == onnx.AttributeProto.GRAPHS:
        return _digest([_graph(graph, known) for graph in attribute.graphs])
    plain = onnx.AttributeProto()
    plain.CopyFrom(attribute)
    plain.doc_string = ""
    plain.t.name = ""
    return _digest(plain.SerializeToString(deterministic=True))


def _openvino(folder: Path) -> str:
    """Digest an OpenVINO model: its operations from the results back to parameters and constants."""
    import numpy as np

    ov = ov_backend.runtime()
    model = ov.Core().read_model(folder / XML, folder / BIN)
    known: dict[str, str] = {}
    positions = {value.get_friendly_name(): position for position, value in enumerate(model.get_parameters())}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        inputs = [
            (known[value.get_node().get_friendly_name()], value.get_index())
            for value in (node.input_value(i) for i in range(node.get_input_size()))
        ]
        kind, shapes = (
            node.get_type_name(),
            [str(node.output(i).get_partial_shape()) for i in range(node.get_output_size())],
        )
        own: object
        if kind == "Constant":
            own = _digest(str(node.get_element_type()), np.ascontiguousarray(node.get_data()).tobytes())
        elif kind == "Parameter":
            own = positions[name], str(node.get_element_type())
        else:
            own = sorted((key, str(value)) for key, value in node.get_attributes().items())
        known[name] = _digest(kind, own, inputs, shapes)
    return _digest([known[result.get_friendly_name()] for result in model.get_results()])
