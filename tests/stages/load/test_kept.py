"""What was put out is taken up again as it was, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpu_pipeline.core.artifact import digest_tree, list_tree
from cpu_pipeline.core.errors import Refused
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.kept import LoadKept

JOB = Job(load=None, timer=None)  # type: ignore[arg-type]  # it loads nothing


@pytest.fixture
def kept(tmp_path: Path) -> LoadKept:
    """Give an output as a version has it: with a model card that is no part of the artifact."""
    folder = tmp_path / "version" / "int8"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "sub" / "config.json").write_text("{}")
    files = tuple(list_tree(folder))
    made = LoadKept(format="onnx", digest=digest_tree(folder), folder=str(folder), files=files)
    (folder / "README.md").write_text("a card")
    return made


def test_takes_the_files_of_the_artifact_alone(kept: LoadKept, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert kept.run({}, out, JOB).files == 2
    assert digest_tree(out) == kept.digest
    assert kept.gives() == "onnx"


def test_refuses_what_is_not_what_it_was(kept: LoadKept, tmp_path: Path) -> None:
    Path(kept.folder, "model.onnx").write_bytes(b"other")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Refused, match="not what was published"):
        kept.run({}, out, JOB)


def test_where_it_lies_is_in_no_key() -> None:
    assert {"folder", "files"} == set(LoadKept.unkeyed)
