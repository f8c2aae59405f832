"""export.optimum as far as the default environment goes: options, and what it says where Optimum is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.engine import environments
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.export.optimum import HEADS, ExportOptimum

TASKS = ("question-answering", "text-classification", "token-classification", "sentence-similarity")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_it_gives_what_was_asked_for_from_its_own_environment(format: str) -> None:
    stage = ExportOptimum(format=format)
    assert stage.gives() == format and stage.backends({"model": "hf"}) == {"hf", format}
    assert stage.environment({"hf": "default", format: "default"}) == "optimum"
    pins = environments.get("optimum").pins
    assert {environments.normal(name) for name in stage.packages} <= pins.keys()


def test_options_are_checked() -> None:
    for wrong in ({"format": "hf"}, {"opset": 3}, {"tolerance": 0}, {"format": "openvino", "opset": 17}):
        with pytest.raises(ValidationError):
            ExportOptimum(**wrong)  # type: ignore[arg-type]
    # The worker gets every option, those that were left out too.
    assert ExportOptimum(**ExportOptimum(format="openvino").model_dump()).opset is None


def test_every_task_has_its_name_in_optimum(job: Callable[..., Job]) -> None:
    assert {job(name).task.auto_class for name in TASKS} == HEADS.keys()  # type: ignore[union-attr]


def test_without_a_task_it_asks_for_one(tmp_path: Path, job: Callable[..., Job]) -> None:
    with pytest.raises(RecipeError, match="names no task"):
        given = {"model": Artifact("hf", tmp_path, "", {})}
        ExportOptimum().run(given, tmp_path, job("question-answering", task=None))


def test_where_optimum_is_not_it_says_how_to_get_it(
    checkpoint: Callable[..., Artifact], job: Callable[..., Job], out: Path
) -> None:
    source = checkpoint("bert", "question-answering")
    with pytest.raises(BackendMissing, match="cpu-pipeline env create optimum") as caught:
        ExportOptimum().run({"model": source}, out, job("question-answering"))
    assert "\n" not in str(caught.value)
