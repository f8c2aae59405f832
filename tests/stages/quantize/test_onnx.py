"""quantize.onnx: smaller, close, for the right CPU, from the rows it is given, and never silently nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, Card, Facts, digest_file, digest_tree
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.quantize import _ranges
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks._synthetic import tokens
from cpu_pipeline.tasks.question_answering import QuestionAnswering

Built = Callable[..., Artifact]

QA = "question-answering"
PLAIN, VNNI = ("x86_64", "avx2"), ("x86_64", "avx2", "avx512_vnni")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give a job's data: twenty calibration rows."""
    return {"calibration": models.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", QA, 20)}


def weights(path: Path) -> list[np.ndarray]:
    graph = onnx.load(path / "model.onnx").graph
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return [numpy_helper.to_array(t) for t in graph.initializer if t.data_type in kinds and len(t.dims) == 2]


def closeness(job: Callable[..., Job], candidate: Artifact, reference: Artifact) -> Facts:
    its = job(QA)
    facts = parity.compare(its.load(candidate), its.load(reference), tokens(reference.path), TOKENS, True)
    assert facts["nonfinite"] == 0
    return facts


@pytest.mark.parametrize("kind", ["exported", "fused"])
def test_dynamic_is_smaller_and_close(
    request: pytest.FixtureRequest, job: Callable[..., Job], out: Path, kind: str
) -> None:
    source = request.getfixturevalue(kind)("bert", QA)
    before = digest_tree(source.path)
    facts = QuantizeOnnx(per_channel=True).run({"model": source}, out, job(QA))
    # Without fusion each layer has six products with weights; fused, query, key and value are inside Attention.
    assert facts.quantized == {"Gather": 3, "MatMul": 13 if kind == "exported" else 7}
    assert facts.bytes < facts.bytes_before
    assert facts.operators["MatMulInteger"] == facts.quantized["MatMul"]
    close = closeness(job, Artifact("onnx", out, "", {}), source)
    assert 0 < close["max_abs"] < 2 and close["cosine_min"] > 0.9
    assert digest_tree(source.path) == before
    assert (out / "tokenizer.json").is_file() and not [p for p in out.iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    "options",
    [{}, {"calibration": "entropy"}, {"calibration": "percentile", "percentile": 99.9}, {"activations": "int8"}],
)
def test_static_takes_its_ranges_from_the_rows(
    fused: Built, job: Callable[..., Job], out: Path, rows: dict[str, Path], options: dict[str, Any]
) -> None:
    source = fused("bert", QA)
    stage = QuantizeOnnx(mode="static", samples=8, **options)
    facts = stage.run({"model": source}, out, job(QA, data=rows))
    assert facts.quantized == {"MatMul": 7}
    assert "DynamicQuantizeLinear" not in facts.operators
    assert closeness(job, Artifact("onnx", out, "", {}), source)["cosine_min"] > 0.8
    zeros = {t.data_type for t in onnx.load(out / "model.onnx").graph.initializer if t.name.endswith("_zero_point")}
    assert (onnx.TensorProto.UINT8 in zeros) == (options.get("activations") != "int8")


def test_methods_and_percentiles_differ(
    fused: Built, job: Callable[..., Job], tmp_path: Path, rows: dict[str, Path]
) -> None:
    digests = set()
    choices = [{"calibration": "minmax"}, {"calibration": "entropy"}, {"calibration": "percentile", "percentile": 90}]
    for number, options in enumerate([*choices, {"calibration": "percentile", "percentile": 99.9}]):
        out = tmp_path / str(number)
        out.mkdir()
        QuantizeOnnx(mode="static", samples=4, **options).run({"model": fused("bert", QA)}, out, job(QA, data=rows))
        digests.add(digest_file(out / "model.onnx"))
    assert len(digests) == 4


def edges(said: dict[str, Any]) -> tuple[Any, Any]:
    """Take lowest and highest from one entry of ONNX Runtime's calibration cache."""
    return said["lowest"], said["highest"]


def test_ranges_hold_what_was_seen(
    fused: Built, job: Callable[..., Job], tmp_path: Path, rows: dict[str, Path]
) -> None:
    source, its = fused("bert", QA), job(QA)
    names = its.load(source).inputs
    feed = _ranges.feed(its.task, source.path, rows["calibration"], 6, 2, names)
    assert [len(arrays["input_ids"]) for arrays in feed] == [2, 2, 2]
    shutil.copy(source.path / "model.onnx", tmp_path)
    found = []
    for method, batches in (("minmax", feed), ("minmax", feed[:1]), ("percentile", feed)):
        file = _ranges.observe(tmp_path / "model.onnx", batches, ["MatMul"], method, 90.0, tmp_path, lambda *_: None)
        (said,) = [v for name, v in json.loads(file.read_text())["data"].items() if name.endswith("/gelu_1")]
        found.append([float(np.ravel(v["data"] if isinstance(v, dict) else v)[0]) for v in edges(said)])
    (low, high), (first_low, first_high), (inner_low, inner_high) = found
    # All batches count, not the last alone; a percentile is narrower.
    assert low <= first_low and high >= first_high and (low, high) != (first_low, first_high)
    assert inner_high < high and inner_low >= low


def test_rows_are_spread_over_the_file(job: Callable[..., Job], checkpoint: Built, rows: dict[str, Path]) -> None:
    seen = []

    class Spy(QuestionAnswering):
        def encode(self, chosen: list[Any], model: Any) -> list[Feature]:
            seen.extend(row["id"] for row in chosen)
            return []

    _ranges.feed(Spy(), checkpoint("bert", QA).path, rows["calibration"], 5, 1, ("input_ids",))
    assert seen == ["0-0", "0-4", "0-8", "0-12", "0-16"]


def test_static_without_rows_is_a_wrong_recipe(
    fused: Built, job: Callable[..., Job], out: Path, tmp_path: Path
) -> None:
    stage = QuantizeOnnx(mode="static")
    with pytest.raises(RecipeError, match=r"needs data\.calibration"):
        stage.run({"model": fused("bert", QA)}, out, job(QA))
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(RecipeError, match="no rows"):
        stage.run({"model": fused("bert", QA)}, out, job(QA, data={"calibration": tmp_path / "none.jsonl"}))


def test_reduce_range_follows_the_instruction_set(fused: Built, job: Callable[..., Job], tmp_path: Path) -> None:
    source = fused("bert", QA)

    def build(name: str, isa: tuple[str, ...], **options: Any) -> tuple[bool, int, Card]:
        out = tmp_path / name
        out.mkdir()
        facts = QuantizeOnnx(operators=("MatMul",), **options).run({"model": source}, out, job(QA, isa=isa))
        widest = max(int(np.abs(weight.astype(int)).max()) for weight in weights(out))
        return facts.reduce_range, widest, Card.read(out, "onnx")

    assert build("plain", PLAIN) == (True, 64, Card("onnx"))
    assert build("vnni", VNNI) == (False, 127, Card("onnx", (host.VNNI,)))
    assert build("forced", PLAIN, reduce_range=False) == (False, 127, Card("onnx", (host.VNNI,)))
    assert build("asked", VNNI, reduce_range=True) == (True, 64, Card("onnx"))
    # Unsigned weights meet unsigned activations, which no instruction set sums wrongly.
    assert build("unsigned", VNNI, weights="uint8")[2] == Card("onnx")


def test_a_model_for_vnni_is_not_opened_without(
    fused: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    QuantizeOnnx().run({"model": fused("bert", QA)}, out, job(QA, isa=VNNI))
    monkeypatch.setattr(host, "isa", lambda: PLAIN)
    with pytest.raises(BackendMissing, match="avx512_vnni"):
        job(QA).load(Artifact("onnx", out, "", {}))


def test_needs_of_the_input_stay(fused: Built, job: Callable[..., Job], out: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(fused("bert", QA).path, source)
    Card("onnx", ("avx2|asimd",)).write(source)
    QuantizeOnnx(reduce_range=True).run({"model": Artifact("onnx", source, "", {})}, out, job(QA))
    assert Card.read(out, "onnx").needs == ("avx2|asimd",)


def test_operators_and_nodes_are_left_out(fused: Built, job: Callable[..., Job], tmp_path: Path) -> None:
    source = fused("bert", QA)
    cases = {
        "operator": ({"skip_operators": ("Gather",)}, {"MatMul": 7}, 0),
        "pattern": ({"skip_nodes": ("*.output.dense/MatMul",)}, {"Gather": 3, "MatMul": 3}, 4),
        "name": ({"skip_nodes": ("qa_outputs/MatMul",), "operators": ("MatMul",)}, {"MatMul": 6}, 1),
    }
    for name, (options, quantized, skipped) in cases.items():
        (tmp_path / name).mkdir()
        facts = QuantizeOnnx(**options).run({"model": source}, tmp_path / name, job(QA))
        assert (facts.quantized, facts.skipped) == (quantized, skipped)
    after = Counter(n.name for n in onnx.load(tmp_path / "name" / "model.onnx").graph.node if n.op_type == "MatMul")
    assert after == {"qa_outputs/MatMul": 1}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"skip_nodes": ("qa_output/MatMul",)}, RecipeError, "no MatMul or Gather node .*near it: qa_outputs/MatMul"),
        ({"operators": ("Matmul",)}, RecipeError, "dynamic quantization of Matmul: did you mean MatMul"),
        ({"mode": "static", "operators": ("LSTM",)}, RecipeError, "no static quantization of LSTM"),
        ({"skip_nodes": ("*",)}, StageFailed, "nothing was quantized"),
        ({"operators": ("Conv",)}, StageFailed, "nothing was quantized: no Conv"),
        ({"operators": ("Attention",)}, StageFailed, "nothing was quantized: no Attention"),
    ],
)
def test_options_that_do_nothing_are_errors(
    fused: Built, job: Callable[..., Job], out: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        QuantizeOnnx(**options).run({"model": fused("bert", QA)}, out, job(QA))


def test_per_channel_and_unsigned_change_the_weights(fused: Built, job: Callable[..., Job], tmp_path: Path) -> None:
    digests = {}
    for name, options in {
        "plain": {},
        "again": {},
        "channel": {"per_channel": True},
        "unsigned": {"weights": "uint8"},
    }.items():
        (tmp_path / name).mkdir()
        QuantizeOnnx(**options).run({"model": fused("bert", QA)}, tmp_path / name, job(QA))
        digests[name] = digest_file(tmp_path / name / "model.onnx")
    assert digests["plain"] == digests["again"]
    assert len(set(digests.values())) == 3
    assert {w.dtype.name for w in weights(tmp_path / "unsigned")} == {"uint8"}
    scales = [t for t in onnx.load(tmp_path / "channel" / "model.onnx").graph.initializer if t.name.endswith("_scale")]
    assert max(np.prod(t.dims, dtype=int) for t in scales) > 1


def test_external_weights_are_read(exported: Built, job: Callable[..., Job], out: Path) -> None:
    source = exported("bert", QA, inline=50_000)
    facts = QuantizeOnnx().run({"model": source}, out, job(QA))
    assert facts.quantized["MatMul"] == 13
    assert closeness(job, Artifact("onnx", out, "", {}), source)["cosine_min"] > 0.9
