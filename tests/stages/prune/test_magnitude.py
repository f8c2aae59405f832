"""The smallest weights go, exactly as many as asked for, and nothing else changes by a bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cpu_pipeline.backends import hf
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.prune.magnitude import PruneFacts, PruneMagnitude
from cpu_pipeline.tasks._synthetic import tokens
from cpu_pipeline.tasks.question_answering import QuestionAnswering

JOB = Job(load=lambda _: pytest.fail("needs no model"), timer=lambda _: pytest.fail("times nothing"), isa=host.isa())
FIRST, SECOND = "encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight"
QA = QuestionAnswering()


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", **metadata})
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def prune(source: Path, out: Path, **options: Any) -> tuple[dict[str, torch.Tensor], PruneFacts]:
    out.mkdir()
    facts = PruneMagnitude(**options).run({"model": Artifact("hf", source, "", {})}, out, JOB)
    tensors = {}
    for file in sorted(out.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors, facts


def zeros(tensor: torch.Tensor) -> int:
    return int((tensor == 0).sum())


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_smallest_go_and_the_rest_stays(tmp_path: Path) -> None:
    weight = torch.tensor([[5.0, -1.0, 0.5, -4.0], [3.0, 2.0, -0.25, 6.0]])
    tensors, facts = prune(checkpoint(tmp_path / "hf", {FIRST: weight}), tmp_path / "out", sparsity=0.5)
    assert tensors[FIRST].tolist() == [[5.0, 0.0, 0.0, -4.0], [3.0, 0.0, 0.0, 6.0]]
    assert stored_facts(facts) == {
        "sparsity": 0.5,
        "zeros": 4,
        "weights": 8,
        "pruned_tensors": 1,
        "tensors": {FIRST: {"zeros": 4, "weights": 8, "sparsity": 0.5}},
    }


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_sparsity_is_exact(tmp_path: Path, sparsity: float, scope: str) -> None:
    source = checkpoint(tmp_path / "hf", {FIRST: random(40, 25), SECOND: random(30, 50, seed=1)})
    tensors, facts = prune(source, tmp_path / "out", sparsity=sparsity, scope=scope)
    assert facts.zeros == zeros(tensors[FIRST]) + zeros(tensors[SECOND]) == round(2500 * sparsity)


def test_equal_weights_go_in_order(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", {SECOND: torch.ones(2, 4), FIRST: -torch.ones(2, 4)})
    tensors, _ = prune(source, tmp_path / "out", sparsity=0.625, scope="global")
    assert tensors[FIRST].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert tensors[SECOND].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    few = torch.randint(1, 4, (2, 96), generator=torch.Generator().manual_seed(0)).float()
    tensors, _ = prune(checkpoint(tmp_path / "few", {FIRST: few}), tmp_path / "groups", pattern="40:96")
    for before, after in zip(few.tolist(), tensors[FIRST].tolist(), strict=True):
        order = sorted(range(96), key=lambda i, row=before: (row[i], i))
        assert [i for i in range(96) if after[i] == 0] == sorted(order[:56])


def test_one_threshold_or_one_for_each_layer(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", {FIRST: random(40, 25, scale=0.01), SECOND: random(40, 25, seed=1)})
    alone, facts = prune(source, tmp_path / "layer", sparsity=0.4)
    assert (zeros(alone[FIRST]), zeros(alone[SECOND]), facts.sparsity) == (400, 400, 0.4)
    together, facts = prune(source, tmp_path / "global", sparsity=0.4, scope="global")
    assert facts.sparsity == 0.4
    assert zeros(together[FIRST]) > 750
    kept = torch.cat([t[t != 0].abs() for t in together.values()])
    whole = torch.cat([t.abs().flatten() for t in load_file(source / "model.safetensors").values()])
    torch.testing.assert_close(kept.sort().values, whole.sort().values[800:], rtol=0, atol=0)


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 2), (4, 8)])
def test_n_of_m_keeps_the_largest_of_each_group(tmp_path: Path, kept: int, of: int) -> None:
    weight = random(6, 32)
    tensors, facts = prune(checkpoint(tmp_path / "hf", {FIRST: weight}), tmp_path / "out", pattern=f"{kept}:{of}")
    assert facts.sparsity == 1 - kept / of
    for before, after in zip(weight.reshape(-1, of), tensors[FIRST].reshape(-1, of), strict=True):
        largest = before.abs().argsort(descending=True)[:kept].sort().values
        assert after.nonzero().flatten().tolist() == largest.tolist()
        assert torch.equal(after[largest], before[largest])


def test_n_of_m_that_does_not_divide_is_named(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", {FIRST: random(8, 30)})
    with pytest.raises(StageFailed, match=rf"{FIRST} has 30 inputs, which 4 does not divide"):
        prune(source, tmp_path / "out", pattern="2:4")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_types_stay_and_untouched_tensors_stay_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    before = {
        FIRST: random(16, 16).to(dtype),
        "encoder.layer.0.dense.bias": random(16).to(dtype),
        "encoder.layer.0.LayerNorm.weight": random(16).to(dtype),
        "embeddings.word_embeddings.weight": random(50, 16).to(dtype),
        "encoder.layer.0.token_embed.weight": random(5, 16).to(dtype),
        "encoder.layer.0.position_ids.weight": torch.arange(16).reshape(4, 4),
        "pooler.dense.weight": random(16, 16).to(dtype),
        "classifier.0.weight": random(2, 16).to(dtype),
    }
    source = checkpoint(tmp_path / "hf", before, note="kept")
    after, facts = prune(source, tmp_path / "out", sparsity=0.5)
    assert list(facts.tensors) == [FIRST]
    assert after[FIRST].dtype == dtype
    assert zeros(after[FIRST]) == 128
    gone = after[FIRST] == 0
    assert before[FIRST][gone].abs().max() <= before[FIRST][~gone].abs().min()
    assert torch.equal(after[FIRST][~gone], before[FIRST][~gone])
    for name in before.keys() - {FIRST}:
        assert torch.equal(after[name], before[name]), name
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "kept"}
    assert torch.equal(load_file(source / "model.safetensors")[FIRST], before[FIRST])


def test_globs_choose(tmp_path: Path) -> None:
    source = checkpoint(
        tmp_path / "hf", {FIRST: random(8, 8), SECOND: random(8, 8), "pooler.dense.weight": random(4, 4)}
    )
    _, facts = prune(source, tmp_path / "a", sparsity=0.5, exclude=["*.layer.1.*"])
    assert list(facts.tensors) == [FIRST]
    _, facts = prune(source, tmp_path / "b", sparsity=0.5, include=["pooler.*"])
    assert list(facts.tensors) == ["pooler.dense.weight"]
    with pytest.raises(
        RecipeError, match=r"include: `encoder.layer.O.\*` matches no weight \(near it: encoder\.layer\.[01]\.dense"
    ):
        prune(source, tmp_path / "c", sparsity=0.5, include=["encoder.layer.O.*"])
    with pytest.raises(RecipeError, match="exclude: `nothing` matches no weight"):
        prune(source, tmp_path / "d", sparsity=0.5, exclude=["nothing"])
    with pytest.raises(StageFailed, match="no weight is left to prune"):
        prune(source, tmp_path / "e", sparsity=0.5, exclude=["*"])


def test_shards_are_pruned_as_one(tmp_path: Path) -> None:
    tensors = {FIRST: random(40, 25, scale=0.01), SECOND: random(40, 25, seed=1)}
    whole, facts = prune(checkpoint(tmp_path / "hf", tensors), tmp_path / "whole", sparsity=0.4, scope="global")
    source = tmp_path / "shards"
    source.mkdir()
    names = {FIRST: "model-00002-of-00002.safetensors", SECOND: "model-00001-of-00002.safetensors"}
    for name, file in names.items():
        save_file({name: tensors[name]}, source / file)
    index = json.dumps({"metadata": {}, "weight_map": names})
    (source / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    apart, again = prune(source, tmp_path / "out", sparsity=0.4, scope="global")
    assert again == facts
    assert all(torch.equal(whole[name], apart[name]) for name in whole)
    assert (tmp_path / "out" / "model.safetensors.index.json").read_text(encoding="utf-8") == index
    save_file({"a": random(2, 2)}, tmp_path / "x.safetensors")  # it is there, and not to be read
    for wrong in ('{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "gone.safetensors"}}', "[", "[]"):
        (source / "model.safetensors.index.json").write_text(wrong, encoding="utf-8")
        with pytest.raises(StageFailed, match=r"index\.json"):
            PruneMagnitude(sparsity=0.5).run({"model": Artifact("hf", source, "", {})}, tmp_path / "none", JOB)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "hf", {FIRST: random(8, 8)})
    whole = (source / "model.safetensors").read_bytes()
    for number, wrong in enumerate((b"", whole[:40], whole[:-8], b"\xff" * 100)):
        (source / "model.safetensors").write_bytes(wrong)
        with pytest.raises(StageFailed, match="not a valid safetensors file"):
            prune(source, tmp_path / str(number), sparsity=0.5)
    (source / "model.safetensors").unlink()
    with pytest.raises(StageFailed, match="only safetensors"):
        prune(source, tmp_path / "none", sparsity=0.5)
    for scope in ("layer", "global"):
        broken = checkpoint(tmp_path / f"nan {scope}", {FIRST: torch.full((4, 4), np.nan)})
        with pytest.raises(StageFailed, match="NaN"):
            prune(broken, tmp_path / f"out {scope}", sparsity=0.5, scope=scope)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "say how much to prune"),
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": -0.1}, "greater than or equal to 0"),
        ({"pattern": "4:2"}, "N must be less than M"),
        ({"pattern": "2:4", "sparsity": 0.5}, "leave it out, 2:4 means 0.5"),
        ({"pattern": "2:4", "scope": "global"}, "global has no meaning"),
        ({"pattern": "2-4"}, "should match pattern"),
        ({"sparsity": 0.5, "scope": "block"}, "scope"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PruneMagnitude(**options)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_pruned_model_runs(tmp_path: Path, kind: str) -> None:
    source = models.make(kind, tmp_path / "hf")
    _, facts = prune(source, tmp_path / "out", pattern="2:4")
    linear = {
        f"{name}.weight"
        for name, module in hf.checkpoint(source, QA).named_modules()
        if isinstance(module, torch.nn.Linear) and "layer" in name
    }
    assert set(facts.tensors) == linear
    assert len(linear) == 12
    batches = tokens(source, [(2, 20)])
    answers = [hf.load(folder, QA, 1) for folder in (tmp_path / "out", source)]
    seen = parity.compare(answers[0], answers[1], batches, TOKENS, True)
    assert seen["nonfinite"] == 0
    assert seen["max_abs"] > 0.01
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
