"""Models that were exported elsewhere: settled under their usual names, and screened before any runtime opens them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import make
from onnx import TensorProto, helper, numpy_helper

from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import PipelineError, RecipeError, Refused, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.model import LoadModel

XML = '<?xml version="1.0"?>\n<net><data offset="0" size="8"/></net>\n'


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make("bert", tmp_path_factory.mktemp("bert"))
    (path / "model.safetensors").unlink()
    return path


@pytest.fixture
def bert(made: Path, tmp_path: Path) -> Path:
    """Give a model without any weights."""
    return Path(shutil.copytree(made, tmp_path / "bert"))


def write_onnx(path: Path, **external: str) -> bytes:
    weight = numpy_helper.from_array(np.arange(2, dtype=np.float32), "weight")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            weight.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "weight"], ["y"])], "g", [x], [y], [weight])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path.read_bytes()


def load(files: Path, out: Path, format: str, tokenizer: Path | None = None) -> Any:
    out.mkdir()
    inputs = {"files": Artifact("files", files, "", {})}
    if tokenizer:
        inputs["tokenizer"] = Artifact("files", tokenizer, "", {})
    return LoadModel(format=format).run(inputs, out, Job(load=None, timer=None))  # type: ignore[arg-type]


def fails(error: type[PipelineError], says: str, files: Path, out: Path, format: str) -> None:
    with pytest.raises(error) as caught:
        load(files, out, format)
    assert type(caught.value) is error
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_onnx_settles_under_its_usual_name_with_its_data(bert: Path, tmp_path: Path) -> None:
    (bert / "onnx").mkdir()
    size = len(write_onnx(bert / "onnx" / "qa.onnx", location="qa.onnx_data", length="8"))
    (bert / "onnx" / "qa.onnx_data").write_bytes(b"12345678")
    assert load(bert, tmp_path / "out", "onnx").weight_bytes == size + 8
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "tokenizer.json", "model.onnx", "qa.onnx_data"} and "onnx" not in names
    assert onnx.load(tmp_path / "out" / "model.onnx").graph.node


def test_openvino_settles_under_its_usual_names(bert: Path, tmp_path: Path) -> None:
    (bert / "graph.xml").write_text(XML)
    fails(StageFailed, "graph.bin is missing", bert, tmp_path / "half", "openvino")
    (bert / "graph.bin").write_bytes(b"12345678")
    assert load(bert, tmp_path / "out", "openvino").weight_bytes == 8 + len(XML)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"openvino_model.xml", "openvino_model.bin"}


@pytest.mark.parametrize(("format", "says"), [("onnx", "called model.onnx"), ("openvino", "called openvino_model.xml")])
def test_a_model_without_a_graph_is_named(bert: Path, tmp_path: Path, format: str, says: str) -> None:
    fails(RecipeError, says, bert, tmp_path / "out", format)


def test_a_tokenizer_from_elsewhere_completes_it(bert: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    for path in bert.glob("*token*"):
        path.rename(words / path.name)
    write_onnx(bert / "model.onnx")
    fails(RecipeError, "say where one is: `tokenizer:", bert, tmp_path / "none", "onnx")
    assert load(bert, tmp_path / "out", "onnx", tokenizer=words).tokens > 100
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (words / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        ({"location": "../../secret"}, Refused, "not a relative name inside"),
        ({"location": "/etc/hostname"}, Refused, "not a relative name inside"),
        ({"location": "model.onnx_data", "offset": str(2**62), "length": "8"}, Refused, "do not lie in its"),
        ({"location": "model.onnx_data", "offset": "-8", "length": "8"}, Refused, "do not lie in its"),
        ({"location": "elsewhere.bin"}, StageFailed, "is missing"),
    ],
)
def test_external_data_is_screened(
    bert: Path, tmp_path: Path, entry: dict[str, str], error: type[PipelineError], says: str
) -> None:
    write_onnx(bert / "model.onnx", **entry)
    (bert / "model.onnx_data").write_bytes(b"12345678")
    fails(error, says, bert, tmp_path / "out", "onnx")


@pytest.mark.parametrize("cut", [0, 1, -1])
def test_broken_onnx_is_named(bert: Path, tmp_path: Path, cut: int) -> None:
    whole = write_onnx(bert / "model.onnx")
    (bert / "model.onnx").write_bytes(whole[:cut])
    fails(StageFailed, "not a valid ONNX model", bert, tmp_path / "out", "onnx")


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (XML.replace("<net>", '<!DOCTYPE net [<!ENTITY a "a">]><net>'), "DOCTYPE"),
        (XML.replace('size="8"', 'size="9"'), "it was cut"),
        (XML.replace('offset="0"', 'offset="-1"'), "offset -1"),
        (XML.replace('offset="0"', 'offset="99999999999999999999"'), "it was cut"),
        (XML.replace('offset="0"', 'offset="0x0"'), "not a valid OpenVINO model"),
        (XML.replace('offset="0"', f'offset="{"9" * 5000}"'), "not a valid OpenVINO model"),
        (XML[:-9], "not a valid OpenVINO model"),
        ("", "not a valid OpenVINO model"),
    ],
)
def test_broken_openvino_is_named(bert: Path, tmp_path: Path, xml: str, says: str) -> None:
    (bert / "openvino_model.xml").write_text(xml)
    (bert / "openvino_model.bin").write_bytes(b"12345678")
    fails(StageFailed, says, bert, tmp_path / "out", "openvino")


def test_a_card_of_ours_keeps_what_the_model_needs(bert: Path, tmp_path: Path) -> None:
    (bert / "openvino_model.xml").write_text(XML)
    (bert / "openvino_model.bin").write_bytes(b"12345678")
    card = Card("openvino", ("avx512_vnni|avx_vnni",), {"INFERENCE_PRECISION_HINT": "bf16"})
    card.write(bert)
    load(bert, tmp_path / "out", "openvino")
    assert Card.read(tmp_path / "out", "openvino") == card


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"runtime": {"CACHE_DIR": "/tmp"}}, Refused, "'CACHE_DIR'"),
        ({"runtime": {"INFERENCE_PRECISION_HINT": "f64"}}, Refused, "may choose its precision alone"),
        ({"runtime": {"INFERENCE_PRECISION_HINT": ["f32"]}}, Refused, "may choose its precision alone"),
        ({"runtime": None}, StageFailed, "`runtime` must be"),
        ({"needs": "avx2"}, StageFailed, "`needs` must list"),
        ({"needs": ["rm -rf"]}, StageFailed, "`needs` must list"),
        ({"format": "onnx"}, RecipeError, "correct `format:`"),
    ],
)
def test_a_card_from_outside_may_not_say_everything(
    bert: Path, tmp_path: Path, change: dict[str, Any], error: type[PipelineError], says: str
) -> None:
    (bert / "openvino_model.xml").write_text(XML)
    (bert / "openvino_model.bin").write_bytes(b"12345678")
    card = {"format": "openvino", "needs": [], "runtime": {}, **change}
    (bert / "cpu_pipeline.json").write_text(json.dumps(card))
    fails(error, says, bert, tmp_path / "out", "openvino")
