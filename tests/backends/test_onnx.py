"""onnx: whole files are run, broken ones named, and external data is screened before any runtime sees it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cpu_pipeline.backends import _external
from cpu_pipeline.backends import onnx as backend
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, Refused, StageFailed

TASK = SimpleNamespace(outputs=("logits",))


def make(path: Path, **entries: str) -> Path:
    """Write a model that gives logits = input_ids x weight; `entries` become its weight's external_data."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "weight")
    if entries:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            weight.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weight"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 2])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    return path


def write_data(path: Path) -> Path:
    path.write_bytes(np.arange(6, dtype=np.float32).tobytes())
    return path


def test_a_model_runs(tmp_path: Path) -> None:
    session = backend.load(make(tmp_path), TASK, 1)
    assert session.inputs == ("input_ids",)
    answer = session({"input_ids": np.array([[1, 1]])})
    assert answer["logits"].tolist() == [[3.0, 5.0, 7.0]] and answer["logits"].dtype == np.float32
    assert list(backend.load(tmp_path, None, 1)({"input_ids": np.array([[1, 0]])})) == ["logits"]


def test_outputs_the_task_reads_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="the model gives logits, the task reads start_logits"):
        backend.load(make(tmp_path), SimpleNamespace(outputs=("start_logits",)), 1)


def test_threads_and_determinism_reach_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: seen.append((a[1], k)) or real(*a, **k))
    backend.load(make(tmp_path), TASK, 3)
    ((options, given),) = seen
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.use_deterministic_compute and given == {"providers": ["CPUExecutionProvider"]}


@pytest.mark.parametrize("content", [b"", b"\0" * 50, random.Random(0).randbytes(300), b"\x08\x0a", b"\x80\x04pickle"])
def test_what_is_no_model_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(StageFailed, match="not a valid ONNX model") as caught:
        backend.load(tmp_path, TASK, 1)
    assert "\n" not in str(caught.value)


def test_a_model_cut_anywhere_is_no_model(tmp_path: Path) -> None:
    whole = (make(tmp_path) / "model.onnx").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "model.onnx").write_bytes(whole[:size])
        with pytest.raises(StageFailed, match="not a valid ONNX model"):
            backend.load(tmp_path, TASK, 1)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no such file"):
        backend.load(tmp_path, TASK, 1)


def test_a_graph_that_means_nothing_says_so(tmp_path: Path) -> None:
    model = onnx.load(make(tmp_path) / "model.onnx")
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(StageFailed, match=r"not a valid ONNX model: .*NoSuchOperator"):
        backend.load(tmp_path, TASK, 1)


def test_a_batch_it_cannot_take_is_a_failed_stage(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"does not run on .*1x5"):
        backend.load(make(tmp_path), TASK, 1)({"input_ids": np.ones((1, 5), dtype=np.int64)})


def test_instruction_sets_that_are_not_here_are_missing(tmp_path: Path) -> None:
    Card("onnx", ("no_such_set|nor_this",)).write(make(tmp_path))
    with pytest.raises(BackendMissing, match="no_such_set"):
        backend.load(tmp_path, TASK, 1)
    Card("onnx", ("no_such_set|" + host.isa()[0],)).write(tmp_path)
    assert backend.load(tmp_path, TASK, 1).inputs


def test_needs_name_alternatives() -> None:
    assert host.missing([host.VNNI], ("x86_64", "avx_vnni")) == []
    assert host.missing([host.VNNI, "avx2"], ("x86_64", "avx2")) == [host.VNNI]
    assert host.missing([], ()) == []
    assert host.has_vnni(("aarch64", "asimddp")) and not host.has_vnni(("x86_64", "avx2"))


def test_external_data_inside_is_read(tmp_path: Path) -> None:
    write_data(tmp_path / "model.onnx_data")
    session = backend.load(make(tmp_path, location="model.onnx_data", offset="0", length="24"), TASK, 1)
    assert session({"input_ids": np.array([[1, 1]])})["logits"].tolist() == [[3.0, 5.0, 7.0]]


BAD = {
    "above": {"location": "../outside"},
    "above, later": {"location": "sub/../../outside"},
    "absolute": {"location": "/etc/hostname"},
    "backslash": {"location": "..\\outside"},
    "nowhere": {"location": ""},
    "itself": {"location": "."},
    "a folder": {"location": "sub"},
    "a link": {"location": "link"},
    "through a linked folder": {"location": "linked/data"},
    "twice linked": {"location": "hard"},
    "memory": {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096", "length": "24"},
    "negative offset": {"location": "data", "offset": "-8", "length": "24"},
    "negative length": {"location": "data", "offset": "0", "length": "-1"},
    "beyond the end": {"location": "data", "offset": "8", "length": "24"},
    "far beyond": {"location": "data", "offset": str(2**63), "length": "24"},
    "no number": {"location": "data", "offset": "x"},
}


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """Give a directory with one good file and many ways to go wrong."""
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("outside", "elsewhere/data", "model/data", "model/once"):
        write_data(tmp_path / name)
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "linked").symlink_to(tmp_path / "elsewhere")
    os.link(inside / "once", inside / "hard")
    return inside


@pytest.mark.parametrize("name", BAD)
def test_external_data_outside_is_refused_before_any_runtime(
    traps: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: pytest.fail("it was opened"))
    make(traps, **BAD[name])
    with pytest.raises(Refused, match="external data"):
        backend.load(traps, TASK, 1)


def test_external_data_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="'gone' is missing"):
        backend.load(make(tmp_path, location="gone"), TASK, 1)


def test_external_data_is_found_wherever_a_tensor_may_be(traps: Path) -> None:
    tensor = TensorProto(name="t", data_type=1, dims=[6], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../outside")
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
    inner = helper.make_graph([constant], "inner", [], [], [])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[6])

    def attribute(**fields: object) -> onnx.NodeProto:
        node = helper.make_node("If", ["x"], ["y"])
        node.attribute.append(onnx.AttributeProto(name="a", **fields))
        return node

    graphs = {
        "constant": helper.make_graph([constant], "g", [], []),
        "subgraph": helper.make_graph([attribute(g=inner)], "g", [], []),
        "subgraphs": helper.make_graph([attribute(graphs=[inner])], "g", [], []),
        "tensors": helper.make_graph([attribute(tensors=[tensor])], "g", [], []),
        "sparse": helper.make_graph([attribute(sparse_tensor=sparse)], "g", [], []),
        "sparses": helper.make_graph([attribute(sparse_tensors=[sparse])], "g", [], []),
        "sparse initializer": helper.make_graph([], "g", [], [], sparse_initializer=[sparse]),
    }
    cases = {name: helper.make_model(graph) for name, graph in graphs.items()}
    empty = helper.make_graph([], "g", [], [])
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 18)])
    cases["function"] = helper.make_model(empty, functions=[function])
    cases["training"] = helper.make_model(empty)
    cases["training"].training_info.add().algorithm.CopyFrom(inner)
    for name, model in cases.items():
        (traps / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(Refused, match="outside"):
            _external.screen(traps / "model.onnx")
            pytest.fail(f"{name}: not seen")


def test_every_field_that_leads_to_a_tensor_is_followed() -> None:
    """Compare our table with the schema that the onnx package carries, so that a newer one cannot hide a tensor."""
    messages = {
        "model": onnx.ModelProto, "training": onnx.TrainingInfoProto, "function": onnx.FunctionProto,
        "graph": onnx.GraphProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto, _external.TENSOR: onnx.TensorProto,
    }  # fmt: skip
    names = {message.DESCRIPTOR.full_name: ours for ours, message in messages.items()}
    for ours, message in messages.items():
        leads = {
            field.number: names[field.message_type.full_name]
            for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.full_name in names
        }
        assert leads == _external.FIELDS.get(ours, {}), ours
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == _external.EXTERNAL_DATA


def test_deep_nesting_is_cut_off(tmp_path: Path) -> None:
    data = b""
    for _ in range(400):  # a graph in an attribute of a node in a graph ...
        for tag in (0x32, 0x2A, 0x0A):
            size, length = len(data), b""
            while True:
                length += bytes([size & 127 | (128 if size > 127 else 0)])
                size >>= 7
                if not size:
                    break
            data = bytes([tag]) + length + data
    (tmp_path / "model.onnx").write_bytes(b"\x3a" + _varint(len(data)) + data)
    with pytest.raises(StageFailed, match="not a valid ONNX model"):
        _external.screen(tmp_path / "model.onnx")


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
