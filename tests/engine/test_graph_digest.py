"""Two graphs mean the same whatever their parts are called and in which order they stand; any other change shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cpu_pipeline.backends import openvino as backend
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine.graph_digest import graph_digest


def write_onnx(out: Path, change: Callable[[Any], None] = lambda _: None) -> Artifact:
    """Write x * w + relu(x), changed."""
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"], name="product"),
        helper.make_node("LeakyRelu", ["x"], ["b"], alpha=0.1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", shape[:1], shape[1:], [weight]), opset_imports=[helper.make_opsetid("", 18)]
    )
    change(model)
    onnx.checker.check_model(model)
    out.mkdir()
    onnx.save(model, out / "model.onnx")
    return Artifact("onnx", out, "", {})


def renamed(model: Any) -> None:
    names = {"x": "input", "w": "weight", "a": "left", "b": "right"}
    for node in model.graph.node:
        node.name = f"other {node.op_type}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for one in (*model.graph.input, *model.graph.initializer):
        one.name = names.get(one.name, one.name)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "rows"


def swapped(model: Any) -> None:
    first = onnx.NodeProto()
    first.CopyFrom(model.graph.node[0])
    model.graph.node[0].CopyFrom(model.graph.node[1])
    model.graph.node[1].CopyFrom(first)


def weighed(model: Any) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(4, dtype=np.float32), "w"))


def steeper(model: Any) -> None:
    model.graph.node[1].attribute[0].f = 0.2


def crossed(model: Any) -> None:
    model.graph.node[2].input[:] = ["b", "a"]


def other(model: Any) -> None:
    model.graph.node[2].op_type = "Sub"


@pytest.mark.parametrize("change", [renamed, swapped])
def test_names_and_order_of_onnx_do_not_count(tmp_path: Path, change: Callable[[Any], None]) -> None:
    assert graph_digest(write_onnx(tmp_path / "one")) == graph_digest(write_onnx(tmp_path / "two", change))


@pytest.mark.parametrize("change", [weighed, steeper, crossed, other])
def test_what_onnx_computes_counts(tmp_path: Path, change: Callable[[Any], None]) -> None:
    assert graph_digest(write_onnx(tmp_path / "one")) != graph_digest(write_onnx(tmp_path / "two", change))


def test_a_branch_counts(tmp_path: Path) -> None:
    """A subgraph is an attribute, and sees the values around it."""

    def branching(inside: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
            branches = [
                helper.make_graph([helper.make_node(kind, ["a"], ["r"])], kind, [], [result])
                for kind in ("Neg", inside)
            ]
            yes = helper.make_tensor("c", TensorProto.BOOL, [], [True])
            model.graph.initializer.append(yes)
            node = helper.make_node("If", ["c"], ["b2"], then_branch=branches[0], else_branch=branches[1])
            model.graph.node.insert(2, node)
            model.graph.node[3].input[:] = ["a", "b2"]

        return change

    one, two, three = (
        write_onnx(tmp_path / name, branching(kind)) for name, kind in (("1", "Abs"), ("2", "Abs"), ("3", "Exp"))
    )
    assert graph_digest(one) == graph_digest(two) != graph_digest(three)


def write_openvino(out: Path, name: str = "x", weight: float = 1.0, slope: float = 0.1, sub: bool = False) -> Artifact:
    """Write x * w + prelu(x)."""
    ov = backend.runtime()
    from openvino import opset13 as op

    x = op.parameter([-1, 4], np.float32, name=name)
    product = op.multiply(x, op.constant(np.full(4, weight, dtype=np.float32)), name=f"{name} product")
    relu = op.prelu(x, op.constant(np.array([slope], dtype=np.float32)))
    whole = op.subtract(product, relu) if sub else op.add(product, relu)
    out.mkdir()
    ov.save_model(ov.Model([whole], [x], "m"), out / backend.XML, compress_to_fp16=False)
    return Artifact("openvino", out, "", {})


def test_openvino(tmp_path: Path) -> None:
    base = graph_digest(write_openvino(tmp_path / "one"))
    assert base == graph_digest(write_openvino(tmp_path / "two", name="another"))
    assert base != graph_digest(write_openvino(tmp_path / "three", weight=2.0))
    assert base != graph_digest(write_openvino(tmp_path / "four", slope=0.2))
    assert base != graph_digest(write_openvino(tmp_path / "five", sub=True))


def test_other_formats_have_no_graph_to_read(tmp_path: Path) -> None:
    assert graph_digest(Artifact("hf", tmp_path, "", {})) is None
