"""fuse.ipex: what can be said without IPEX; tests/suites/environments/ipex fuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from conftest import Cli
from pydantic import ValidationError

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.fuse.ipex import FUSIONS, FuseIpex, IpexFacts, fusions, operators, promised, require

Built = Callable[..., Artifact]

QA = "question-answering"
TRACED = {"aten::softmax": 12, "aten::gelu": 12, "aten::layer_norm": 25}


def test_it_runs_beside_ipex_and_loads_the_checkpoint_where_it_belongs() -> None:
    stage = FuseIpex()
    assert stage.gives() == "ipex" and stage.backends({"model": "hf"}) == {"hf", "ipex"}
    assert stage.environment({"hf": "default", "ipex": "ipex"}) == "ipex"


def test_mkl_is_for_float32() -> None:
    FuseIpex(kernels="mkl")
    with pytest.raises(ValidationError, match="kernels: `mkl` computes float32 alone"):
        FuseIpex(kernels="mkl", dtype="bfloat16")


def test_an_add_goes_to_the_linear_layer_or_to_the_norm() -> None:
    onednn, mkl = promised(TRACED, "onednn", "ipex"), promised(TRACED, "mkl", "ipex")
    # The counts of RoBERTa-base; as many adds either way.
    assert [onednn[name] for name in FUSIONS] == [12, 12, 24, 12, 1]
    assert [mkl[name] for name in FUSIONS] == [12, 12, 0, 0, 25]


def test_attention_left_to_torch_is_expected_to_be_fused_unless_it_was_asked_for() -> None:
    left = {"aten::scaled_dot_product_attention": 6}
    assert promised(left, "onednn", "ipex")["attention"] == 6
    asked = promised(left, "onednn", "torch")
    assert asked["attention"] == 0 and asked["concat_linear"] == 6


def test_options_say_what_to_insist_on() -> None:
    promise = promised(TRACED, "onednn", "ipex")
    assert FuseIpex().expected(promise) == promise
    assert FuseIpex(attention=3, linear_gelu=0).expected(promise) == {**promise, "attention": 3, "linear_gelu": 0}


def test_too_few_fusions_fail_and_say_how_to_accept_them() -> None:
    promise = promised(TRACED, "onednn", "ipex")
    require(promise, promise)
    require({**promise, "attention": 13}, promise)
    said = r"fused attention 0 of 12, linear_gelu 11 of 12: .* set `attention: 0`, `linear_gelu: 11` to accept it"
    with pytest.raises(StageFailed, match=said):
        require({**promise, "attention": 0, "linear_gelu": 11}, promise)


def test_operators_of_inner_blocks_count() -> None:
    def choose(x: torch.Tensor, flag: bool) -> torch.Tensor:
        return torch.softmax(x, 0) if flag else torch.softmax(x, 1)

    assert operators(torch.jit.script(choose).graph)["aten::softmax"] == 2


def test_only_a_split_of_a_linear_layers_answer_is_a_sign_of_concatenation() -> None:
    library = torch.library.Library("ipex_prepack", "FRAGMENT")
    library.define("linear_run(Tensor x) -> Tensor")
    try:
        graph = torch._C.parse_ir("""
            graph(%x : Tensor):
              %sizes : int[] = prim::Constant[value=[1, 1, 1]]()
              %axis : int = prim::Constant[value=1]()
              %y : Tensor = ipex_prepack::linear_run(%x)
              %a : Tensor[] = aten::split_with_sizes(%y, %sizes, %axis)
              %b : Tensor[] = aten::split_with_sizes(%x, %sizes, %axis)
              return (%a, %b)
            """)
        assert fusions(graph) == {**dict.fromkeys(FUSIONS, 0), "concat_linear": 1}
    finally:
        library._destroy()


def test_it_needs_a_task_a_cpu_and_ipex(
    checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"model": checkpoint("bert", QA)}
    with pytest.raises(RecipeError, match="names no task"):
        FuseIpex().run(source, out, replace(job(QA), task=None))
    with pytest.raises(BackendMissing, match="`cpu-pipeline env create ipex`"):
        FuseIpex().run(source, out, job(QA))
    monkeypatch.setattr(host, "isa", lambda: host.TARGETS["avx2"])
    with pytest.raises(BackendMissing, match=r"`dtype: bfloat16` needs avx512f, .* use float32, or export.openvino"):
        FuseIpex(dtype="bfloat16").run(source, out, job(QA))
    assert not list(out.iterdir())


def test_the_report_says_what_was_fused() -> None:
    facts = IpexFacts.model_construct(dtype="bfloat16", **promised(TRACED, "onednn", "ipex"))
    [note] = FuseIpex().details(facts)
    assert note.text == (
        "Fused by IPEX in bfloat16: attention 12, concat_linear 12, linear_add 24, linear_gelu 12, add_layernorm 1."
    )


def test_a_run_without_the_environment_ends_with_4_and_the_command_that_makes_it(command: Cli, tmp_path: Path) -> None:
    models.make("bert", tmp_path / "model", QA)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {{folder: model}}\ntask: {QA}\nstages:\n  - {{id: fused, use: fuse.ipex}}\n")
    said = command(
        "run", recipe, "--store", tmp_path / "store", "--out", tmp_path / "out",
        env={"CPU_PIPELINE_ENVIRONMENTS": str(tmp_path / "none")},
    )  # fmt: skip
    assert said.code == 4 and "cpu-pipeline env create ipex" in said.err, said
    assert not (tmp_path / "none").exists() and not (tmp_path / "out").exists()
