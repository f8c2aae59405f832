"""Dropped layers are gone, the others as they were, and plain transformers loads the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import torch
import transformers
from pydantic import ValidationError

from cpu_pipeline.backends import _structure, hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages._checkpoint import save
from cpu_pipeline.stages.prune.layers import LayersFacts, PruneLayers, spread

Jobs = Callable[..., Job]
TASK = "text-classification"


def prune(job: Jobs, folder: Path, kind: str, layers: int = 4, **options: Any) -> tuple[Path, LayersFacts]:
    count = {"n_layers": layers} if kind == "distilbert" else {"num_hidden_layers": layers}
    model = models.make(kind, folder / "hf", TASK, **count)
    (folder / "out").mkdir()
    return folder / "out", PruneLayers(**options).run(
        {"model": Artifact("hf", model, "", {})}, folder / "out", job(TASK)
    )


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("options", [{"drop": (1, 2)}, {"keep": 2}])
def test_is_the_model_without_these_layers(job: Jobs, tmp_path: Path, kind: str, options: Any) -> None:
    out, facts = prune(job, tmp_path, kind, **options)
    assert facts.kept == [0, 3] and facts.layers == 4
    ours = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    whole = hf.checkpoint(tmp_path / "hf", job(TASK).task)
    assert len(_structure.layers_of(ours)) == ours.config.num_hidden_layers == 2
    for layer in (1, 2):
        _structure.layers_of(whole)[layer].forward = lambda hidden, *_, **__: hidden
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_widths_of_their_own_go_with_their_layers(job: Jobs, tmp_path: Path) -> None:
    out, _ = prune(job, tmp_path, "bert", 3, keep=3)
    model = hf.checkpoint(out, job(TASK).task)
    _structure.cut(model, [range(4), range(2), range(3)], [range(48), range(32), range(16)])
    pruned = tmp_path / "pruned"
    pruned.mkdir()
    task: Any = job(TASK).task
    save(model, task, out, pruned)
    _structure.write(pruned, _structure.widths_of(model))
    (tmp_path / "less").mkdir()
    PruneLayers(drop=(1,)).run({"model": Artifact("hf", pruned, "", {})}, tmp_path / "less", job(TASK))
    assert _structure.widths_of(hf.checkpoint(tmp_path / "less", task)) == [
        _structure.Width(4, 48),
        _structure.Width(3, 16),
    ]


@pytest.mark.parametrize(
    ("layers", "keep", "found"),
    [(6, 4, [0, 2, 3, 5]), (6, 3, [0, 3, 5]), (12, 6, [0, 2, 4, 7, 9, 11]), (6, 6, [0, 1, 2, 3, 4, 5]), (6, 1, [0])],
)
def test_kept_layers_are_evenly_spread(layers: int, keep: int, found: list[int]) -> None:
    assert spread(layers, keep) == found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep": 5}, "has 4 layers"),
        ({"drop": (4,)}, "no layer 4; the model has 0 to 3"),
        ({"drop": (0, 1, 2, 3)}, "leave one"),
    ],
)
def test_layers_that_are_not_there_are_refused(job: Jobs, tmp_path: Path, options: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        prune(job, tmp_path, "bert", **options)


@pytest.mark.parametrize("options", [{}, {"keep": 2, "drop": (1,)}])
def test_one_of_two_options_is_given(options: Any) -> None:
    with pytest.raises(ValidationError, match="not both"):
        PruneLayers(**options)
