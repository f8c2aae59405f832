"""Write ONNX graphs so that equal models are equal bytes, with names that a recipe can point at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from cpu_pipeline.backends.onnx import DATA, MODEL

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the torch modules around a node."""
INLINE = 1_500_000_000
"""Bytes of weights that still fit beside a graph under protobuf's limit of 2 GB."""


def tidy(model: Any, wrapper: str = "") -> None:
    """Name nodes and values after the torch modules they come from and drop everything else that was noted of them.

    Takes an onnx_ir.Model. A node is called `module.path/OpType`, with `_1`, `_2`, ... when there are several;
    `wrapper` is a prefix of module names to leave out. Stack traces and source paths go.
    """
    import onnx_ir as ir

    keep = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    names: Counter[str] = Counter()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        scope = _scope(node, wrapper)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        names[name] += 1
        node.name = name if names[name] == 1 else f"{name}_{names[name] - 1}"
        for value in node.outputs:
            if scope and id(value) not in keep and "/" not in (value.name or ""):
                value.name = f"{scope}/{value.name}"
    if wrapper:
        for value in list(model.graph.initializers.values()):
            if value.name.startswith(wrapper):
                value.name = value.name.removeprefix(wrapper)
    strip(model)


def strip(model: Any) -> None:
    """Drop everything that was noted of an onnx_ir.Model besides what it computes, stack traces and paths included."""
    import onnx_ir as ir

    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for noted in (node, *node.outputs):
            noted.metadata_props.clear()
            noted.doc_string = None
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
            value.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.name = "model"


def save(model: Any, out: Path, inline: int = INLINE) -> None:
    """Write a graph.

    Args:
        model: an onnx_ir.Model.
        out: directory to write model.onnx into.
        inline: bytes of weights that stay in the graph's file; more of them go to model.onnx_data beside it.
    """
    import onnx_ir as ir

    total = sum(v.const_value.nbytes for g in model.graphs() for v in g.initializers.values() if v.const_value)
    if total > inline:
        ir.save(model, out / MODEL, external_data=DATA)
        return
    ir.save(ir.external_data.load_to_model(model), out / MODEL)


def count_operators(path: Path) -> dict[str, int]:
    """Count the nodes of an ONNX file by operator, those of functions and subgraphs included."""
    import onnx

    counts: Counter[str] = Counter()
    model = onnx.load(path, load_external_data=False)
    todo = [model.graph.node, *(function.node for function in model.functions)]
    while todo:
        for node in todo.pop():
            counts[node.op_type] += 1
            todo.extend(a.g.node for a in node.attribute if a.HasField("g"))
            todo.extend(g.node for a in node.attribute for g in a.graphs)
    return dict(sorted(counts.items()))


def size(directory: Path) -> int:
    """Sum the bytes of a directory's graph and of the weights beside it."""
    return sum((directory / name).stat().st_size for name in (MODEL, DATA) if (directory / name).is_file())


def _scope(node: Any, wrapper: str) -> str:
    """Say which torch module a node belongs to: from the exporter's notes, or from the value that it gives."""
    import ast

    if noted := node.metadata_props.get(SCOPES):
        modules = [str(scope) for scope in ast.literal_eval(noted)[:-1]]
        scope = modules[-1] if modules else ""
        return "" if scope.startswith("_") else (scope + ".").removeprefix(wrapper).rstrip(".")
    name = node.outputs[0].name if node.outputs else ""
    return name.rpartition("/")[0] if name else ""
