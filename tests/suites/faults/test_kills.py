"""F1: SIGKILL before every write of a build and of its promotion, one after the other; no lie is ever served."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, writes
from project import ProjectFixture

from cpu_pipeline.release import latest, promotions
from cpu_pipeline.release.manifest import edited
from cpu_pipeline.store import contents
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import recorder

KILLED = -9


@pytest.fixture
def forks(bench: ProjectFixture) -> Iterator[Forks]:
    """A process that forks the commands of one test."""
    made = Forks(bench.environment(), bench.home)
    yield made
    made.close()


def clean(bench: ProjectFixture, forks: Forks, recipe: Path) -> dict[str, str]:
    """Build once without faults; return the digests, and forget that build."""
    said = forks.call(*bench.run_arguments(recipe, "--json"))
    assert said["code"] == 0, said["err"]
    shutil.rmtree(bench.out)
    bench.runs.unlink()
    return digests(said)


def digests(said: dict[str, Any]) -> dict[str, str]:
    return {name: step["digest"] for name, step in json.loads(said["out"])["steps"].items()}


def check_latest(bench: ProjectFixture, may_be_missing: bool = True) -> None:
    """Hold `latest`, if it is there, against the manifest of what it names."""
    latest = bench.out / "small" / "latest"
    if os.path.lexists(latest) or not may_be_missing:
        assert latest.is_dir(), f"latest names {latest.readlink()}, which is not there"
        assert edited(latest) == []


def check_next(bench: ProjectFixture, forks: Forks, recipe: Path, wanted: dict[str, str], at: int) -> None:
    """Check what a kill left, and that the next run goes on from it."""
    where = f"killed before write {at}"
    store = Store(bench.store)
    wrong = [p.says for p in contents.verify(store)] if bench.store.exists() else []
    assert wrong == [], where
    finished = {path.stem for path in (bench.store / "actions").rglob("*.json")}
    started = len(bench.lines("began"))
    said = forks.call(*bench.run_arguments(recipe, "--json"))
    assert said["code"] == 0, f"{where}: {said['err']}"
    assert digests(said) == wanted, where
    steps, built = json.loads(said["out"])["steps"], json.loads(said["out"])["built"]
    assert not {steps[name]["key"] for name in built} & finished, f"{where}: a finished step was built again"
    again = len(bench.lines("began")) - started
    assert again <= 1 or started == 0, f"{where}: {again} steps ran again"
    assert bench.leftovers() == [], where
    check_latest(bench, may_be_missing=False)
    check_memory(bench, where)


def check_memory(bench: ProjectFixture, where: str) -> None:
    """Hold what is remembered against what is there."""
    last, *before = recorder.runs(Store(bench.store), "small")
    version = (bench.out / "small" / "latest").resolve().name
    assert (last.outcome, last.version) == ("done", version), where
    assert {entry.outcome for entry in before} <= {"died", "done"}, where
    assert [one.version for one in promotions.promoted(bench.out / "small")] == [version], where


def test_a_build_killed_at_any_write(bench: ProjectFixture, forks: Forks) -> None:
    """The last step of a build, its record, its promotion, and all the housekeeping around them."""
    first = {"id": "one"}
    prefix = bench.recipe(first)
    assert forks.call(*bench.run_arguments(prefix, "--until", "one"))["code"] == 0
    shutil.copytree(bench.store, bench.home / "prefix")
    recipe = bench.recipe(first, {"id": "two", "text": "two"})
    wanted = clean(bench, forks, recipe)
    at = 0
    for at in writes(7):
        for path in (bench.store, bench.out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(bench.home / "prefix", bench.store)
        bench.runs.unlink(missing_ok=True)
        said = forks.call(*bench.run_arguments(recipe), kill_at=at)
        if said["code"] != KILLED:
            assert said["code"] == 0, said["err"]
            break
        check_latest(bench)
        check_next(bench, forks, recipe, wanted, at)
    assert at > 50, "the sweep has lost its grip on the writes"


def test_a_first_build_killed_while_the_store_is_made(bench: ProjectFixture, forks: Forks) -> None:
    """An absent store: its directories, its tag, the first lease and the first object."""
    recipe = bench.recipe({"id": "one"})
    wanted = clean(bench, forks, recipe)
    for at in [*range(1, 24), *range(24, 64, 8)]:
        for path in (bench.store, bench.out):
            shutil.rmtree(path, ignore_errors=True)
        bench.runs.unlink(missing_ok=True)
        assert forks.call(*bench.run_arguments(recipe), kill_at=at)["code"] == KILLED
        check_next(bench, forks, recipe, wanted, at)


def test_a_forced_promotion_killed_at_any_write(bench: ProjectFixture, forks: Forks) -> None:
    """Overwriting an edited version: `latest` names a whole version at every moment once there is one."""
    recipe = bench.recipe({"id": "one"})
    wanted = clean(bench, forks, recipe)
    assert forks.call(*bench.run_arguments(recipe))["code"] == 0
    [version] = [path for path in (bench.out / "small").iterdir() if path.is_dir() and not path.is_symlink()]
    (version / "report.md").write_text("edited\n", encoding="utf-8")
    shutil.copytree(bench.out, bench.home / "edited", symlinks=True)
    at = 0
    for at in writes(7):
        shutil.rmtree(bench.out, ignore_errors=True)
        shutil.copytree(bench.home / "edited", bench.out, symlinks=True)
        said = forks.call(*bench.run_arguments(recipe, "--force"), kill_at=at)
        latest = bench.out / "small" / "latest"
        assert latest.is_dir(), f"killed before write {at}: latest names {latest.readlink()}, which is not there"
        if said["code"] != KILLED:
            assert said["code"] == 0, said["err"]
            break
        assert edited(latest) in ([], ["report.md"])
        next_one = forks.call(*bench.run_arguments(recipe, "--force", "--json"))
        assert next_one["code"] == 0, next_one["err"]
        assert digests(next_one) == wanted
        assert bench.leftovers() == [], f"killed before write {at}"
        check_latest(bench, may_be_missing=False)
    assert at > 20, "the sweep has lost its grip on the writes"


def test_a_rollback_killed_at_any_write(bench: ProjectFixture, forks: Forks) -> None:
    """`latest` names one version or the other, whole; the lines tell which, by whom, and what is rejected."""
    steps = [{"id": "one", "text": text, "runs": "runs.txt"} for text in ("first", "second")]
    for step in steps:
        assert forks.call(*bench.run_arguments(bench.recipe(step)))["code"] == 0
    home = bench.out / "small"
    first, second = (one.version for one in promotions.promoted(home))
    shutil.copytree(bench.out, bench.home / "before", symlinks=True)
    at, moved = 0, set()
    while True:
        at += 1
        shutil.rmtree(bench.out)
        shutil.copytree(bench.home / "before", bench.out, symlinks=True)
        said = forks.call("rollback", "small", "--out", bench.out, "--store", bench.store, kill_at=at)
        now = latest.latest(home)
        assert now in (first, second) and edited(home / "latest") == [], f"killed before write {at}"
        order = [(one.version, one.by) for one in promotions.promoted(home)]
        rolled = [(first, "rollback")] if now == first else []
        assert order == [(first, "run"), (second, "run"), *rolled], f"killed before write {at}"
        assert promotions.rejected(home) == ({second} if rolled else set()), f"killed before write {at}"
        if said["code"] != KILLED:
            assert (said["code"], now) == (0, first), said["err"]
            break
        moved.add(now)
        again = forks.call("rollback", "small", first, "--out", bench.out, "--store", bench.store)
        assert again["code"] == 0, again["err"]
        assert promotions.promoted(home)[2:] and promotions.promoted(home)[-1].by == "rollback"
        assert bench.leftovers() == [], f"killed before write {at}"
    assert moved == {first, second} and at > 15, "the sweep has lost its grip on the writes"
