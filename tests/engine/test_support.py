"""Every way to run a model is told with what it takes and needs, and says of a model whether it takes it."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
from conftest import ROOT

from cpu_pipeline import backends
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.engine import environments, support
from cpu_pipeline.engine.support import Model


@pytest.fixture
def found() -> dict[str, support.BackendSupport]:
    return {way.format: way for way in support.backend_support()}


def test_every_format_that_runs_is_a_way(found: dict[str, support.BackendSupport]) -> None:
    assert set(found) == set(backends.names())
    for way in found.values():
        assert way.status and way.precisions and way.architectures and way.about.endswith(".")
        assert set(way.precisions) <= {"float32", "bfloat16", "int8"}


def test_stages_are_told_by_what_they_give(found: dict[str, support.BackendSupport]) -> None:
    assert found["onnx"].stages == ("export.onnx", "export.optimum", "fuse.onnx", "quantize.onnx")
    assert "export.optimum" in found["openvino"].stages
    assert found["fastpath"].stages == ("compile.fastpath",)


def test_a_way_whose_environment_is_not_made_does_not_work(
    found: dict[str, support.BackendSupport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found["onnx"].lacks == ()
    monkeypatch.setenv("CPU_PIPELINE_ENVIRONMENTS", str(tmp_path))
    [ipex] = [way for way in support.backend_support() if way.format == "ipex"]
    assert ipex.lacks == ("the environment `ipex`",)
    assert ipex.packages["torch"] == environments.get("ipex").pins["torch"]


@pytest.mark.parametrize(
    ("format", "model", "says"),
    [
        ("onnx", Model("roberta", "hf"), "yes"),
        ("onnx", Model("roberta", "onnx"), "yes"),
        ("onnx", Model("roberta", "openvino"), "no"),
        ("hf", Model("roberta", "onnx"), "no"),
        ("onnx", Model("deberta-v2", "hf"), "untried"),
        ("fastpath", Model("mpnet", "hf"), "yes"),
        ("fastpath", Model("deberta-v2", "hf"), "no"),
    ],
)
def test_says_whether_it_takes_a_model(
    found: dict[str, support.BackendSupport], format: str, model: Model, says: str
) -> None:
    takes, why = found[format].takes(model)
    assert takes == says and bool(why) == (says != "yes")


def test_looks_at_the_model_of_a_recipe(tmp_path: Path) -> None:
    assert support.model(str(ROOT / "recipes" / "quickstart.yaml")) == Model("roberta", "hf")
    models.make("distilbert", tmp_path / "model", "text-classification")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: {folder: model}\ntask: text-classification\ndata: {validation: {file: v.jsonl}}\n"
        "stages: [{id: a, use: export.onnx}]\n"
    )
    assert support.model(str(recipe)) == Model("distilbert", "hf")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"no config\.json with a `model_type`"):
        support.model(str(recipe))
