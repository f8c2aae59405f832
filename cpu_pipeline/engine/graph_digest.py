"""Digest what a graph computes, whatever its nodes and values are called and in which order they stand.

A value is digested by how it is made: an input by its place and type, a constant by its bytes, what a node gives by the
node's operator, its attributes and the digests of what it takes. Two graphs of equal digests compute the same, node for
node; equal answers of differently made graphs are not found out (that is what `validate.agreement` is for).
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


def meaning(artifact: Artifact) -> str | None:
    """Digest what an artifact's graph computes; None for formats that have no graph we can read."""
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
    versions = sorted((one.domain, one.version) for one in model.opset_import)
    functions = sorted(
        (one.domain, one.name, _body(one.node, {name: f"input {i}" for i, name in enumerate(one.input)}, one.output))
        for one in model.functions
    )
    return _digest(versions, functions, _graph(model.graph, {}))


def _graph(graph: Any, outside: Mapping[str, str]) -> str:
    """Digest a graph; `outside` holds the values that a subgraph sees."""
    import onnx

    known = dict(outside)
    for place, one in enumerate(graph.input):
        kind = one.type.tensor_type
        known[one.name] = _digest("input", place, kind.elem_type, [side.dim_value or "any" for side in kind.shape.dim])
    for one in graph.initializer:
        array = onnx.numpy_helper.to_array(one)
        known[one.name] = _digest("constant", one.data_type, list(one.dims), array.tobytes())
    return _body(graph.node, known, [one.name for one in graph.output])


def _body(nodes: Any, known: dict[str, str], outputs: Any) -> str:
    known.setdefault("", "nothing")  # an input that is left out
    for node in nodes:  # sorted: the format asks for it
        made = _digest(
            node.domain, node.op_type, [known[name] for name in node.input],
            sorted((one.name, _attribute(one, known)) for one in node.attribute),
        )  # fmt: skip
        known |= {name: _digest(made, place) for place, name in enumerate(node.output)}
    return _digest([known[name] for name in outputs])


def _attribute(attribute: Any, known: Mapping[str, str]) -> str:
    import onnx

    if attribute.type == onnx.AttributeProto.GRAPH:
        return _graph(attribute.g, known)
    if attribute.type == onnx.AttributeProto.GRAPHS:
        return _digest([_graph(one, known) for one in attribute.graphs])
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
    places = {one.get_friendly_name(): place for place, one in enumerate(model.get_parameters())}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        taken = [
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
            own = places[name], str(node.get_element_type())
        else:
            own = sorted((key, str(value)) for key, value in node.get_attributes().items())
        known[name] = _digest(kind, own, taken, shapes)
    return _digest([known[one.get_friendly_name()] for one in model.get_results()])
