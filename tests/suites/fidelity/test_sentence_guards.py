"""A folder of sentence-transformers that is read otherwise than it reads it stops the build, with it beside us."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
from sentence_models import SIZE, body
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

from cpu_pipeline import tasks
from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.fidelity import LoadFidelity
from cpu_pipeline.stages.load.model import LoadModel
from cpu_pipeline.tasks import _sentences, _transformer
from cpu_pipeline.tasks._pooling import Pooling as OurPooling

TASK = tasks.get("sentence-similarity")()
read = _sentences.read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder in which every setting counts."""
    out = tmp_path_factory.mktemp("st")
    transformer = Transformer(str(body("bert")), processor_kwargs={"model_max_length": 8})
    pooling = Pooling(SIZE, ("max", "mean"), include_prompt=False)
    parts = [transformer, pooling, Dense(2 * SIZE, 8), Normalize()]
    said: dict[str, Any] = {"prompts": {"query": "red house "}, "default_prompt_name": "query"}
    model = SentenceTransformer(modules=parts, device="cpu", similarity_fn_name="dot", truncate_dim=5, **said)
    model.save(str(out), create_model_card=False)
    return out


def check(folder: Path, scratch: Path, **options: Any) -> Any:
    files = Artifact("files", folder, "", {})
    rows = models.write_rows(scratch / "rows.jsonl", "sentence-similarity", 12)
    for name in ("model", "out"):
        (scratch / name).mkdir()
    task = tasks.get("sentence-similarity")(**options)
    job = Job(lambda model: hf.load(model.path, task, 1), None, task=task, data={"validation": rows})  # type: ignore[arg-type]
    LoadModel().run({"files": files}, scratch / "model", job)
    inputs = {"model": Artifact("hf", scratch / "model", "", {}), "files": files}
    return LoadFidelity().run(inputs, scratch / "out", job)


OPTIONS = ({}, {"prompt": "document"}, {"prompt": {"text": "blue "}, "max_seq_length": 12}, {"similarity": "manhattan"})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_folder_that_is_read_rightly_passes(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    facts = check(folder, tmp_path, **options)
    assert facts.rows == {"validation": 12} and facts.answers == 24


WRONG: dict[str, dict[str, Any]] = {
    "no default prompt": {"default_prompt": ""},
    "the prompt's tokens count": {"modules": (OurPooling(("max", "mean")),)},
    "modes in another order": {"modules": (OurPooling(("mean", "max"), include_prompt=False),)},
    "other vectors compared": {"similarity": "cosine"},
    "all numbers count": {"truncate_dim": None},
    "another length": {"transformer": _transformer.Transformer(9)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_read_wrongly_stops_the_build(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def misread(model: Path, **options: Any) -> Any:
        found = read(model, **options)
        change = dict(WRONG[wrong])
        if "modules" in change:
            change["modules"] = (*change["modules"], *found.modules[1:])
        return replace(found, **change)

    monkeypatch.setattr(_sentences, "read", misread)
    with pytest.raises(RecipeError, match=r"row '0-\d+' of data.validation is not (read|answered) as"):
        check(folder, tmp_path)
