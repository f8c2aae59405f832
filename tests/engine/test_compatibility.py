"""A store and a lock that an earlier version wrote are still whole, fresh and fully reused.

`compatibility/` was written by an earlier state of version 0.1.0: a tiny DistilBERT, its rows, a store after `run`, and
the lock. Keys name package versions and the host; the tests pretend
those that the records and the lock name. Where one of these tests fails, users lose what they have built: change the
code, or raise the version of exactly the stages whose output changes and write these files anew.
"""

from __future__ import annotations

import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpu_pipeline import api
from cpu_pipeline.core import host
from cpu_pipeline.core.errors import Stale
from cpu_pipeline.engine import keys, packages, preview
from cpu_pipeline.engine.executors._base import Handle, StepRequest
from cpu_pipeline.engine.executors.local import LocalExecutor
from cpu_pipeline.engine.keys import walk
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import lockfile
from cpu_pipeline.stages.export.onnx import ExportOnnx
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import StoredArtifact

WRITTEN = Path(__file__).parent / "compatibility"
AGAIN = ("data.calibration", "data.validation")
"""Nodes that are built again because versions were raised since (CHANGELOG.md, Caches): text-classification is 2."""
LATER = ("data", "predict:int8", "predict:model", "int8", "same", "accuracy", "speed")
"""Nodes that read those: their keys are not known before."""
LOCK: Mapping[str, Any] = yaml.safe_load((WRITTEN / "toy.lock").read_text(encoding="utf-8"))


class NothingRuns(LocalExecutor):
    """Refuses to run anything."""

    def start(self, request: StepRequest) -> Handle:
        raise AssertionError(f"{request.use} is built again")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Unpack what was written."""
    for name in ("toy.yaml", "toy.lock"):
        shutil.copy(WRITTEN / name, tmp_path / name)
    with tarfile.open(WRITTEN / "written.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def records(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((home / "store" / "actions").glob("*/*.json"))]


@pytest.fixture(autouse=True)
def machine(records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend the packages and the machine that the records and the lock name."""
    asked = [record["ingredients"] for record in records]
    parts = [*asked, *(part for fields in asked for part in (*fields["backends"].values(), fields["task"]) if part)]
    versions = {"cpu-pipeline": LOCK["made_with"]["cpu-pipeline"]}
    for part in parts:
        versions |= part.get("packages", {})
    for module in (packages, keys, lockfile):
        monkeypatch.setattr(
            module, "installed", lambda name, environment="default": versions.get(name, packages.ABSENT)
        )

    [measured] = [fields["host"] for fields in asked if fields["host"] and "cpu" in fields["host"]]
    monkeypatch.setattr(host, "isa", lambda: tuple(measured["isa"]))
    monkeypatch.setattr(host, "cpu_model", lambda: measured["cpu"])
    monkeypatch.setattr(host, "cores", lambda: measured["cores"])
    monkeypatch.setattr(host, "memory", lambda: measured["memory_gib"] << 30)
    system, _, processor = LOCK["made_with"]["system"].partition(" ")
    monkeypatch.setattr(platform, "python_version", lambda: LOCK["made_with"]["python"])
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)


@pytest.fixture
def plan(home: Path) -> Plan:
    return api.plan(api.load_recipe(home / "toy.yaml"))


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "store")


def not_found(plan: Plan, store: Store) -> list[str]:
    """Name the nodes that a walk over the plan finds nothing for."""
    return [visit.node.id for visit in walk(plan, lambda _, key: store.find(key)) if visit.artifact is None]


def test_every_record_is_read_and_every_other_key_is_the_same(plan: Plan, store: Store) -> None:
    visits = {visit.node.id: visit for visit in walk(plan, lambda _, key: store.find(key))}
    assert {*AGAIN, *LATER} == set(not_found(plan, store))
    for name, (node, keyed, found) in visits.items():
        record = store.last(f"toy/{name}")
        assert record is not None
        stored = StoredArtifact.of(record, store.path_of(record.object))
        assert node.fits(stored) and store.check(stored)
        if name not in (*AGAIN, *LATER):
            assert keyed is not None and found is not None and found.record == record  # type: ignore[attr-defined]
            assert keyed.ingredients == record.ingredients
    assert [visits[name].keyed is None for name in LATER] == [True] * len(LATER)


def test_a_plan_says_what_is_cached_and_why_the_rest_is_not(plan: Plan, store: Store) -> None:
    seen = {seen.node.id: seen for seen in preview.look(plan, store)}
    assert {name for name, one in seen.items() if one.state == "cached"} == plan.nodes.keys() - {*AGAIN, *LATER}
    assert all("task.version: 1 → 2" in seen[name].why for name in AGAIN)


def test_the_lock_is_read_and_says_what_changed(plan: Plan) -> None:
    with pytest.raises(Stale, match=r"steps\.int8\.key"):
        api.check_lock(plan)


def test_another_version_of_a_package_would_be_seen(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys.installed
    monkeypatch.setattr(
        keys, "installed", lambda name, environment="default": "0" if name == "onnx" else before(name, environment)
    )
    assert "float" in not_found(plan, store)
    with pytest.raises(Stale, match="onnx"):
        api.check_lock(plan)


def test_another_dump_of_an_option_would_be_seen(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = ExportOnnx.model_dump
    monkeypatch.setattr(ExportOnnx, "model_dump", lambda self, **how: {**dump(self, **how), "new": None})
    assert "float" in not_found(plan, store)
    with pytest.raises(Stale, match=r"steps\.float\.key"):
        api.check_lock(plan)
