"""pt2: archives that are not ours, cut or strange are named, and nothing of them is opened or written."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cpu_pipeline.backends import pt2
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed

RUNTIME = {"inputs": ["input_ids"], "outputs": ["logits"], "torch": torch.__version__}
OURS = {f"model/{pt2.LIBRARY}": b"\x7fELF no more", f"model/{pt2.METADATA}": b"{}", "model/archive_format": b"pt2"}


def make(path: Path, members: dict[str, bytes], needs: tuple[str, ...] = ()) -> Path:
    """Write an archive of these members, and a card, into a new directory."""
    path.mkdir()
    Card("pt2", needs, RUNTIME).write(path)
    with zipfile.ZipFile(path / "model.pt2", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("data", [b"", b"\0" * 50, random.Random(0).randbytes(300), b"PK\x03\x04", b"\x80\x04pickle"])
def test_what_is_no_archive_says_so(tmp_path: Path, data: bytes) -> None:
    path = make(tmp_path / "m", {})
    (path / "model.pt2").write_bytes(data)
    with pytest.raises(StageFailed, match="not a valid compiled model") as caught:
        pt2.load(path, None, 1)
    assert "\n" not in str(caught.value)


def test_a_missing_archive_says_so(tmp_path: Path) -> None:
    path = make(tmp_path / "m", {})
    (path / "model.pt2").unlink()
    with pytest.raises(StageFailed, match=r"not a valid compiled model: .*No such file"):
        pt2.load(path, None, 1)


def test_a_library_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="not a valid compiled model"):
        pt2.load(make(tmp_path / "m", OURS), None, 1)


@pytest.mark.parametrize("name", [pt2.LIBRARY, pt2.METADATA])
def test_a_member_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    members = {member: data for member, data in OURS.items() if not member.endswith(name)}
    with pytest.raises(StageFailed, match=f"it lacks {name}"):
        pt2.load(make(tmp_path / "m", members), None, 1)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.so",
        "/tmp/outside.so",
        "model/../../outside.so",
        "other/archive_format",
        "model/data/weights/weight_0",
        "model/data/aotinductor/model/evil.so",
        "model/data/aotinductor/other/model.wrapper.so",
        "model/data/aotinductor/model/model.wrapper.so/../x",
    ],
)
def test_a_strange_member_is_refused_and_not_written(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "m", {**OURS, name: b"x"})
    with pytest.raises(StageFailed, match="is not what ours hold; do not open this file"):
        pt2.load(path, None, 1)
    assert not list(tmp_path.rglob("outside*"))


def test_the_processor_is_looked_at_before_the_archive(tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match="compiled for sve2, which this CPU lacks"):
        pt2.load(make(tmp_path / "m", {}, ("sve2",)), None, 1)


def test_outputs_the_task_reads_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="the model gives logits, the task reads start_logits"):
        pt2.load(make(tmp_path / "m", OURS), SimpleNamespace(outputs=("start_logits",)), 1)


def test_a_card_that_says_nothing_is_a_failed_stage(tmp_path: Path) -> None:
    path = make(tmp_path / "m", OURS)
    Card("pt2").write(path)
    with pytest.raises(StageFailed, match="does not list what a compiled model takes"):
        pt2.load(path, None, 1)


def test_usage_is_python() -> None:
    compile(pt2.usage("some/folder", None), "usage", "exec")
