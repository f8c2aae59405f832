"""B11, B12: metrics that are no numbers, counts that are too small, artifacts for another CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project import WORDS, CommandResult, ProjectFixture

ROWS = [{"text": f"a {word} film", "label": label} for word, label in (("good", 1), ("bad", 0))] * 2


def write_onnx(folder: Path, value: float) -> None:
    """Turn a checkpoint's folder into an ONNX model whose logit is `value` times what tells the second word's id."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in ("input_ids", "attention_mask")]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2])
    row = numpy_helper.from_array(np.array([[value, 0.0]], dtype=np.float32), "row")
    pick = numpy_helper.from_array(np.array([2], dtype=np.int64), "second")  # after [CLS] and `a`
    middle = numpy_helper.from_array(np.array([4.5], dtype=np.float32), "middle")  # between `good` and `bad`
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["floats", "second"], ["column"], axis=1),
        helper.make_node("Sub", ["column", "middle"], ["side"]),
        helper.make_node("Mul", ["side", "row"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "constant", ids, [logits], [row, pick, middle])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    (folder / "model.safetensors").unlink()


def checked(bench: ProjectFixture, use: str, **options: object) -> CommandResult:
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    check = {"id": "check", "use": use, "from": {"candidate": "one", "reference": "model"}, **options}
    recipe = bench.recipe(
        {"id": "one", "form": "onnx"},
        check,
        model={"folder": "model", "format": "onnx"},
        data={"validation": {"file": "rows.jsonl"}},
    )
    return bench.run(recipe)


def test_not_a_number_fails_agreement(bench: ProjectFixture) -> None:
    """B11: both sides say NaN, so they differ by nothing; and the gate fails."""
    write_onnx(bench.home / "model", float("nan"))
    checked(bench, "validate.agreement", max_difference=1.0).expect(3, "step `check`", "NaN")


def test_too_few_rows_fail_accuracy(bench: ProjectFixture) -> None:
    """B11: a perfect comparison of 4 rows proves nothing where 100 are asked for."""
    write_onnx(bench.home / "model", -1.0)
    checked(bench, "validate.accuracy", max_drop=0.999, min_rows=4).expect(0)
    checked(bench, "validate.accuracy", max_drop=0.999).expect(3, "step `check`", "rows")


def test_metric_that_is_no_number(bench: ProjectFixture) -> None:
    """B11: facts with NaN are kept as no number, and fail; the manifest and records stay JSON."""
    gate = {"id": "gate", "use": "faulty.gate", "score": None}
    said = bench.run(bench.recipe({"id": "one"}, gate), "--json").expect(3, "score None")
    assert said.json["error"] == "GateFailed"
    for path in (bench.store / "actions").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [path.name for path in (bench.out / "small").iterdir()] == ["failed"]


def test_artifact_for_another_cpu(bench: ProjectFixture) -> None:
    """B12: `verify` and `store verify` say what this CPU lacks."""
    recipe = bench.recipe({"id": "one", "needs": ["avx9000", "sse4_2|asimd|avx9000"]})
    bench.built(recipe)
    said = bench.call("verify", bench.out / "small" / "latest").expect(4, "one cannot run on this CPU")
    assert "this CPU lacks avx9000\n" in said.out
    assert "this CPU lacks avx9000" in bench.verify().out
    told = bench.call("verify", bench.out / "small" / "latest", "--json")
    assert told.code == 4


def test_loader_refuses_what_this_cpu_cannot_run(bench: ProjectFixture) -> None:
    """B12: a check that has to load such an artifact says so, before the runtime opens it."""
    steps = (
        {"id": "one", "needs": ["avx9000"], "form": "onnx"},
        {
            "id": "check",
            "use": "validate.agreement",
            "from": {"candidate": "one", "reference": "model"},
            "same_top": 1.0,
        },
    )
    bench.run(bench.recipe(*steps)).expect(4, "step `check`", "avx9000", "this CPU lacks")


def test_words_fit(bench: ProjectFixture) -> None:
    """The rows of these tests are made of words the tokenizer knows."""
    assert {word for row in ROWS for word in str(row["text"]).split()} <= set(WORDS)
