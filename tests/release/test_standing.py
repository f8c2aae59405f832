"""What is in service is read once, and looked at again only for whether it moved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from publishing import PretendedProject

from cpu_pipeline.release import latest, standing, versions
from cpu_pipeline.release.manifest import MANIFEST
from cpu_pipeline.release.standing import Overtaken


@pytest.fixture
def made(tmp_path: Path) -> PretendedProject:
    return PretendedProject(tmp_path / "project")


def test_a_version_in_service_is_read(made: PretendedProject) -> None:
    version = made.published()
    now = standing.read_standing(version.parent)
    assert (now.folder, now.version, now.edited, now.fault) == (version, version.name, (), None)
    assert now.outputs is not None and now.outputs.keys() == {"float", "int8"}
    assert [move.version for move in now.promotions] == [version.name]
    assert not now.rolled_back


def test_nothing_in_service_is_a_fault(tmp_path: Path) -> None:
    now = standing.read_standing(tmp_path / "toy")
    assert (now.folder, now.version, now.manifest, now.outputs, now.promotions) == (None, None, None, None, ())
    assert now.fault == f"nothing is in service in {tmp_path / 'toy'}"


@pytest.mark.parametrize("text", ["[", "[1]", "{}", "[" * 100_000])
def test_a_manifest_that_cannot_be_read_is_a_fault(made: PretendedProject, text: str) -> None:
    version = made.published()
    (version / MANIFEST).write_text(text)
    now = standing.read_standing(version.parent)
    assert now.fault == f"{version} is in service and was edited ({MANIFEST})"
    assert not now.holds({"outputs": {}, "recipe": {}, "steps": {}}, ())


def test_a_version_that_was_rolled_back_is_known_by_its_outputs(made: PretendedProject) -> None:
    first, second = made.published(), made.published(content="other")
    described = json.loads((second / MANIFEST).read_text())
    versions.rollback(first.parent)
    now = standing.read_standing(first.parent)
    assert (now.version, now.rolled_back) == (first.name, True)
    assert now.rejected_as(described) == second.name
    assert now.rejected_as(json.loads((first / MANIFEST).read_text())) is None


def test_it_notices_when_another_version_is_put_into_service(made: PretendedProject) -> None:
    first, second = made.published(), made.published(content="other")
    now = standing.read_standing(first.parent)
    now.require_unmoved()
    versions.rollback(first.parent)
    with pytest.raises(Overtaken, match=f"toy: {first.name} was put into service meanwhile"):
        now.require_unmoved()
    versions.rollback(first.parent, second.name)
    with pytest.raises(Overtaken):
        now.require_unmoved()  # the same version again, and promoted by hand since: no rollback rejects it any more
    now = standing.read_standing(first.parent)
    (first.parent / "latest").unlink()
    with pytest.raises(Overtaken, match="nothing was put into service"):
        now.require_unmoved()


def test_latest_that_was_moved_by_hand_is_no_move_while_it_rests(made: PretendedProject) -> None:
    """The log of promotions lacks the move; what is said about it is the same each time."""
    first, second = made.published(), made.published(content="other")
    latest.point(first.parent, first.name)
    now = standing.read_standing(first.parent)
    assert [move.by for move in now.promotions] == ["run", "run", "hand"]
    now.require_unmoved()
    with versions.moving(first.parent):  # writes the missing line
        now.require_unmoved()
    assert standing.read_standing(first.parent) == now
    assert second.is_dir()
