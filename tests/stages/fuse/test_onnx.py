"""fuse.onnx: it fuses, it says how much, and fusing nothing fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cpu_pipeline.core.artifact import Artifact, Card, digest_file
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.stages import _onnx
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.fuse.onnx import FuseOnnx, fuse, layers, require_fused

Built = Callable[..., Artifact]

QA = "question-answering"


CASES = [("bert", QA, 4), ("distilbert", "token-classification", 4), ("roberta", "text-classification", 5)]


@pytest.mark.parametrize(("kind", "task", "norms"), CASES)
def test_every_layer_is_fused_and_answers_stay(fused: Built, kind: str, task: str, norms: int) -> None:
    facts = fused(kind, task).facts
    assert (facts["Attention"], facts["SkipLayerNormalization"], facts["BiasGelu"]) == (2, norms, 2)
    assert facts["attention_expected"] == 2
    assert facts["nodes"] < facts["nodes_before"] / 2
    assert facts["parity"]["max_abs"] < 2e-5
    assert _onnx.count_operators(fused(kind, task).path / "model.onnx")["Attention"] == 2


def test_the_graph_as_onnxruntimes_own_optimizer_leaves_it_breaks_the_contract(exported: Built, tmp_path: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    model = optimize_model(str(exported("bert", QA).path / "model.onnx"), "bert", num_heads=4, hidden_size=32)
    model.save_model_to_file(str(tmp_path / "model.onnx"))
    counts = _onnx.count_operators(tmp_path / "model.onnx")
    assert counts["BiasGelu"] == 2
    with pytest.raises(StageFailed, match=r"0 of 2 attention layers were fused \(Attention 0, .*BiasGelu 2\)"):
        require_fused(counts, 2)


def test_the_stage_itself_insists(
    exported: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported("bert", QA)
    monkeypatch.setattr(
        "cpu_pipeline.stages.fuse.onnx.fuse", lambda source, out: shutil.copy(source / "model.onnx", out)
    )
    with pytest.raises(StageFailed, match="0 of 2 attention layers"):
        FuseOnnx().run({"model": source}, out, job(QA))
    with pytest.raises(StageFailed, match="0 of 1 attention layers"):
        FuseOnnx(attention=1).run({"model": source}, out, job(QA))
    assert FuseOnnx(attention=0).run({"model": source}, out, job(QA)).attention == 0


def test_a_fusion_that_changes_answers_fails(
    exported: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = exported("bert", QA)

    def fuse_wrongly(source: Path, out: Path) -> None:
        import onnx

        fuse(source, out)
        model = onnx.load(out / "model.onnx")
        for node in model.graph.node:
            if node.op_type == "SkipLayerNormalization":
                node.attribute[0].f = 0.5  # epsilon
        onnx.save(model, out / "model.onnx")

    monkeypatch.setattr("cpu_pipeline.stages.fuse.onnx.fuse", fuse_wrongly)
    with pytest.raises(StageFailed, match=r"fuse.onnx: answers differ"):
        FuseOnnx().run({"model": other}, out, job(QA))


def test_names_survive_and_bytes_are_the_same_again(exported: Built, fused: Built, tmp_path: Path) -> None:
    import onnx

    first = fused("bert", QA).path / "model.onnx"
    fuse(exported("bert", QA).path, tmp_path)
    assert digest_file(tmp_path / "model.onnx") == digest_file(first)
    names = [node.name for node in onnx.load(first).graph.node]
    assert len(set(names)) == len(names)
    assert {"bert.encoder.layer.0.output.dense/MatMul", "bert.encoder.layer.1.attention.self/Attention"} <= set(names)
    assert b".py" not in first.read_bytes()


def test_weights_beside_the_graph_stay_beside_it(exported: Built, job: Callable[..., Job], out: Path) -> None:
    source = exported("bert", QA, inline=50_000)
    facts = FuseOnnx().run({"model": source}, out, job(QA))
    assert (out / "model.onnx_data").stat().st_size > (out / "model.onnx").stat().st_size
    assert facts.attention == 2


def test_the_card_and_the_other_files_are_carried(
    exported: Built, job: Callable[..., Job], out: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(exported("minilm", "sentence-similarity").path, source)
    card = Card("onnx", ("sse4_2|asimd",))
    card.write(source)
    FuseOnnx().run({"model": Artifact("onnx", source, "", {})}, out, job("sentence-similarity"))
    assert Card.read(out, "onnx") == card
    assert (out / "1_Pooling" / "config.json").is_file() and (out / "tokenizer.json").is_file()


def test_the_number_of_layers_is_read_or_asked_for(tmp_path: Path) -> None:
    for config, count in (({"num_hidden_layers": 12}, 12), ({"n_layers": 6}, 6)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert layers(tmp_path) == count
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="set `attention`"):
        layers(tmp_path)
