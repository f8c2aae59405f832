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
from cpu_pipeline.engine import build, keys, packages, preview
from cpu_pipeline.engine.executors._base import Handle, StepRequest
from cpu_pipeline.engine.executors.local import LocalExecutor
from cpu_pipeline.engine.keys import walk
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import lockfile
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.stages.load.model import LoadModel
from cpu_pipeline.stages.quantize.onnx import QuantizeOnnx
from cpu_pipeline.store.local import Store
from cpu_pipeline.tasks import Task

WRITTEN = Path(__file__).parent / "compatibility"
RAISED: Mapping[type[Stage | Task], int] = {}
"""Stage or task whose version was raised since, rightly -> the version that wrote the store."""
NEW: tuple[str, ...] = ()
"""Nodes that plans did not have then."""
LOCK: Mapping[str, Any] = yaml.safe_load((WRITTEN / "toy.lock").read_text(encoding="utf-8"))


class NothingRuns(LocalExecutor):
    """Refuses to run anything that there was then."""

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
    """Pretend the packages, the machine and the raised versions that the records and the lock name."""
    for part, version in RAISED.items():
        monkeypatch.setattr(part, "version", version)
    monkeypatch.setattr(
        keys,
        "_python",
        lambda stage: {"python": LOCK["made_with"]["python"].rpartition(".")[0]} if not stage.online else {},
    )
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


def test_every_record_is_read_and_every_key_is_the_same(plan: Plan, store: Store) -> None:
    visits = list(walk(plan, lambda _, key: store.find(key)))
    for node, keyed, found in (visit for visit in visits if visit.node.id not in NEW):
        assert keyed is not None and found is not None, f"{node.id}: no record has its key"
        assert keyed.ingredients == found.record.ingredients and node.fits(found)  # type: ignore[attr-defined]
        assert store.check(found)
        assert store.last(f"toy/{node.id}") == found.record  # type: ignore[attr-defined]
    assert sorted({keyed.key for node, keyed, _ in visits if keyed and node.id not in NEW}) == store.keys()


def test_a_plan_says_that_everything_is_cached(plan: Plan, store: Store) -> None:
    states = {seen.node.id: seen.state for seen in preview.look(plan, store)}
    assert {name: state for name, state in states.items() if state != "cached"} == dict.fromkeys(NEW, "build")


def test_a_build_runs_nothing_and_makes_the_same_lock(plan: Plan, store: Store) -> None:
    built = build.build(plan, store, executor=NothingRuns())
    assert built.passed and built.made == list(NEW) and list(built.artifacts) == list(built.records)
    lock = yaml.safe_load(lockfile.dump(lockfile.make_lock(built, store)))
    assert without_new(lock) == without_new(LOCK)


def without_new(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a lock what new nodes put into it, and the digest of the plan, which has them."""
    steps = {name: step for name, step in lock["steps"].items() if name not in NEW}
    return {**lock, "steps": steps, "recipe": {"name": lock["recipe"]["name"]}}


def test_the_lock_is_fresh(plan: Plan) -> None:
    api.check_lock(plan)


def test_another_version_of_a_package_would_be_seen(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys.installed
    monkeypatch.setattr(
        keys, "installed", lambda name, environment="default": "0" if name == "onnx" else before(name, environment)
    )
    assert [name for name in not_found(plan, store) if name not in NEW][:2] == ["float", "int8"]
    with pytest.raises(Stale, match="onnx"):
        api.check_lock(plan)


def test_another_dump_of_an_option_would_be_seen(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = QuantizeOnnx.model_dump
    monkeypatch.setattr(QuantizeOnnx, "model_dump", lambda self, **how: {**dump(self, **how), "new": None})
    assert next(name for name in not_found(plan, store) if name not in NEW) == "int8"
    with pytest.raises(Stale, match=r"steps\.int8\.key"):
        api.check_lock(plan)


def test_after_a_raised_version_only_its_stage_runs_again(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadModel, "version", LoadModel.version + 1)
    built = build.build(plan, store, executor=LocalExecutor())
    assert built.passed and built.made == ["model", *NEW]
