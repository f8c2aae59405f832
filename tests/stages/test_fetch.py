"""fetch: copies what its source has, and is keyed by content, not by spelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from project import write_model

from cpu_pipeline.core.errors import Refused, StageFailed
from cpu_pipeline.sources import find as find_source
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.fetch import Fetch


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path / "model"


def fetch(folder: Path) -> Fetch:
    return Fetch(source="folder", fields={"folder": str(folder)}, want="model")


def test_copies_the_files_and_counts_them(model: Path, out: Path, job: Callable[..., Job]) -> None:
    facts = fetch(model).run({}, out, job("text-classification", source=find_source))
    names = {p.name for p in out.iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    assert stored_facts(facts) == {"files": len(names), "bytes": sum(p.stat().st_size for p in out.iterdir())}
    assert (out / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_is_known_by_content_wherever_it_is(model: Path, tmp_path: Path) -> None:
    before = fetch(model).identity(find_source)
    moved = model.rename(tmp_path / "moved")
    assert fetch(moved).identity(find_source) == before
    (moved / "config.json").write_text("{}")
    assert fetch(moved).identity(find_source) != before
    assert "fields" in Fetch.unkeyed and "source" not in Fetch.unkeyed and "want" not in Fetch.unkeyed


def test_takes_a_risk_only_when_it_is_allowed(model: Path, out: Path, job: Callable[..., Job]) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(Refused, match="pickle"):
        fetch(model).run({}, out, job("text-classification", source=find_source))
    allowed = job("text-classification", source=find_source, allow=frozenset({"pickle"}))
    fetch(model).run({}, out, allowed)
    assert (out / "pytorch_model.bin").is_file()


def test_nothing_else_is_given_sources(model: Path, out: Path, job: Callable[..., Job]) -> None:
    with pytest.raises(StageFailed, match="without its sources"):
        fetch(model).run({}, out, job("text-classification"))
    assert Fetch.online and Fetch.internal
