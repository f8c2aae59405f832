"""A store that is shared: pushes killed anywhere, pulls on other machines, lies, full disks, two at once."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, writes
from project import ProjectFixture, ended
from suites.faults.test_disk import flip, limited
from suites.faults.test_kills import KILLED

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.store import contents
from cpu_pipeline.store.local import Store

CHAIN = ({"id": "one"}, {"id": "two", "text": "two"})


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> ProjectFixture:
    """Give a project that was built, and pushed into a folder; not to be changed."""
    made = ProjectFixture(tmp_path_factory.mktemp("origin") / "project")
    made.built(made.recipe(*CHAIN))
    made.call("store", "push", made.home / "far", "--store", made.store).expect(0)
    return made


@pytest.fixture
def bench(origin: ProjectFixture, tmp_path: Path) -> ProjectFixture:
    """Give a copy of it, to be changed."""
    shutil.copytree(origin.home, tmp_path / "project", symlinks=True)
    return ProjectFixture(tmp_path / "project")


@pytest.fixture
def far(bench: ProjectFixture) -> Path:
    """Give the remote of that copy."""
    return bench.home / "far"


@pytest.fixture
def second(bench: ProjectFixture, far: Path) -> ProjectFixture:
    """Give another machine: the same project elsewhere, another store, another user's folder."""
    other = ProjectFixture(bench.home.parent / "second" / "project")
    other.env = {"HOME": str(other.home.parent / "user")}
    other.recipe(*CHAIN)
    return other


@pytest.fixture
def forks(bench: ProjectFixture) -> Iterator[Forks]:
    """A process that forks the commands of one test."""
    made = Forks(bench.environment(), bench.home)
    yield made
    made.close()


def test_a_second_machine_builds_nothing(bench: ProjectFixture, second: ProjectFixture, far: Path) -> None:
    recipe = second.home / "small.yaml"
    said = second.call("store", "pull", far, "--recipe", recipe, "--store", second.store).expect(0)
    assert "pulled 4 steps" in said.out
    assert second.built(recipe).json["built"] == []
    assert second.lines() == [] and second.verify().code == 0
    assert Store(second.store).keys() == Store(bench.store).keys()


def test_a_second_machine_looks_while_it_builds(second: ProjectFixture, far: Path) -> None:
    recipe = second.home / "small.yaml"
    before = sorted((p, p.stat().st_mtime_ns) for p in far.rglob("*"))
    said = second.built(recipe, "--store-remote", far)
    assert said.json["built"] == [] and said.err.count("because the remote store had it") == 4
    other = second.built(second.recipe(CHAIN[0], {"id": "two", "text": "other"}), "--store-remote", far)
    assert other.json["built"] == ["two"]
    assert sorted((p, p.stat().st_mtime_ns) for p in far.rglob("*")) == before
    shutil.rmtree(far)  # what was brought is here now
    assert second.built(recipe, "--store-remote", far).json["built"] == []
    assert second.leftovers() == [] and second.verify().code == 0


def test_a_lying_remote_costs_time_and_a_warning(bench: ProjectFixture, second: ProjectFixture, far: Path) -> None:
    """One object's bytes are others, one record is cut: those steps are built, to the same digests."""
    store = Store(bench.store)
    wanted = bench.built(bench.home / "small.yaml")
    one, two = (wanted.json["steps"][name] for name in ("one", "two"))
    flip(far / "objects" / one["digest"][:2] / one["digest"] / "model.safetensors")
    record = far / "actions" / two["key"][:2] / f"{two['key']}.json"
    record.write_bytes(record.read_bytes()[:-9])
    said = second.built(second.home / "small.yaml", "--store-remote", far)
    assert said.json["built"] == ["one", "two"] and said.digests == wanted.digests
    assert said.err.count("warning") == 2 and one["key"][:12] in said.err and two["key"][:12] in said.err
    assert store.keys() == Store(second.store).keys() and second.verify().code == 0
    pulled = bench.call("store", "pull", far, "--store", bench.home / "third").expect(0, "passed over")
    assert "pulled 2 steps" in pulled.out and "2 missing" in pulled.out
    assert contents.verify(Store(bench.home / "third")) == []


def lie(folder: Path, key: str, **parts: Any) -> None:
    """Change a record and its digest of itself."""
    place = folder / "actions" / key[:2] / f"{key}.json"
    said = json.loads(place.read_text(encoding="utf-8"))
    del said["check"]
    said |= parts
    place.chmod(0o644)
    place.write_text(json.dumps(said | {"check": digest_json(said)}), encoding="utf-8")


def test_records_that_no_stage_wrote_cost_time_and_a_warning(bench: ProjectFixture, second: ProjectFixture) -> None:
    """From a remote, or left in the store by an earlier build: they are set aside, and those steps are built here."""
    gate = {"id": "gate", "use": "faulty.gate"}
    wanted = bench.built(bench.recipe(*CHAIN, gate))
    far = bench.home / "far"
    bench.call("store", "push", far, "--store", bench.store).expect(0)
    keys = {name: step["key"] for name, step in wanted.json["steps"].items()}
    lie(far, keys["model"], run={"when": "x"})
    lie(far, keys["one"], format="zzz")
    lie(far, keys["two"], facts={"x": "\ud800"})
    lie(far, keys["gate"], facts={})
    recipe = second.recipe(*CHAIN, gate)
    plan = second.call("plan", recipe, "--store", second.store, "--store-remote", far).expect(0)
    assert "1 cached, 4 to build" in plan.out
    said = second.built(recipe, "--store-remote", far)
    assert said.json["built"] == ["model", "one", "two", "gate"] and said.digests == wanted.digests
    for name, says in {"model": "passed over", "one": "mends", "two": "passed over", "gate": "mends"}.items():
        [line] = [line for line in said.err.splitlines() if "warning" in line and keys[name][:12] in line]
        assert says in line
    assert second.built(recipe).json["built"] == []
    assert second.verify().code == 0
    lie(second.store, keys["gate"], facts={"score": "high"})
    lie(second.store, keys["two"], run={"seconds": None})
    again = second.built(recipe)
    assert again.json["built"] == ["two", "gate"] and again.digests == wanted.digests
    assert "set aside, building it on this machine" in again.err and second.verify().code == 0


def test_a_push_killed_at_any_write(bench: ProjectFixture, far: Path, forks: Forks) -> None:
    """Whatever was sent by then, another machine gets nothing wrong of it, and the next push sends the rest."""
    whole = {p.relative_to(far): p.read_bytes() for p in far.rglob("*") if p.is_file()}
    recipe, other = bench.home / "small.yaml", bench.home / "other"
    last = Store(bench.store).last("small/two")
    assert last is not None
    shutil.rmtree(far / "objects" / last.object[:2] / last.object)
    for record in far.glob("actions/*/*.json"):
        if last.object in record.read_text(encoding="utf-8"):
            record.unlink()
    shutil.copytree(far, bench.home / "prefix")
    at = 0
    for at in writes(5):
        shutil.rmtree(far)
        shutil.copytree(bench.home / "prefix", far)
        said = forks.call("store", "push", far, "--store", bench.store, kill_at=at)
        if said["code"] != KILLED:
            assert said["code"] == 0, said["err"]
            break
        shutil.rmtree(other, ignore_errors=True)
        pulled = forks.call("store", "pull", far, "--recipe", recipe, "--store", other)
        assert (pulled["code"], "warning" in pulled["err"]) == (0, False), f"killed before write {at}: {pulled['err']}"
        assert len(Store(other).keys()) in (3, 4)
        assert contents.verify(Store(other)) == [], f"killed before write {at}"
        assert forks.call("store", "push", far, "--store", bench.store)["code"] == 0
        now = {p.relative_to(far): p.read_bytes() for p in far.rglob("*") if p.is_file()}
        assert {p: data for p, data in now.items() if p.parts[0] != "incoming"} == whole, f"killed before write {at}"
    assert at > 16, "the sweep has lost its grip on the writes"
    assert contents.verify(Store(bench.store)) == [] and bench.leftovers() == []


def test_a_pull_killed_at_any_write(bench: ProjectFixture, far: Path, forks: Forks) -> None:
    recipe, other = bench.home / "small.yaml", bench.home / "other"
    said = forks.call("store", "pull", far, "--store", other)
    assert said["code"] == 0
    for at in range(1, said["writes"], 11):
        shutil.rmtree(other, ignore_errors=True)
        assert forks.call("store", "pull", far, "--store", other, kill_at=at)["code"] == KILLED
        assert not other.exists() or contents.verify(Store(other)) == [], f"killed before write {at}"
        assert forks.call("store", "pull", far, "--recipe", recipe, "--store", other)["code"] == 0
        assert len(Store(other).keys()) == 4 and list((other / "work").iterdir()) == [], f"killed before write {at}"
        assert contents.verify(Store(other)) == []


@pytest.mark.parametrize("most", [200, 1000])
def test_the_disk_fills_up_while_pulling(most: int, second: ProjectFixture, far: Path) -> None:
    """No file may grow past `most` bytes: 75, the mount is named, and nothing half-written is kept."""
    pull = ["store", "pull", far, "--store", second.store]
    small = limited(second, pull, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    small.expect(75, "largest size allowed on /", "run the same command again")
    assert second.verify().code == 0
    run = [*second.run_arguments(second.home / "small.yaml"), "--store-remote", far]
    limited(second, run, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))).expect(
        75, "largest size allowed"
    )
    second.call(*pull).expect(0)
    assert second.built(second.home / "small.yaml").json["built"] == [] and second.leftovers() == []


def test_the_disk_of_a_folder_fills_up_while_pushing(bench: ProjectFixture, far: Path) -> None:
    shutil.rmtree(far)
    push = ["store", "push", far, "--store", bench.store]
    small = limited(bench, push, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200)))
    small.expect(75, "largest size allowed on /")
    assert not list(far.glob("actions/*/*")) or bench.call("store", "pull", far, "--store", bench.home / "b").code == 0
    bench.call(*push).expect(0)
    assert list((far / "incoming").iterdir()) == []
    assert "pulled 4 steps" in bench.call("store", "pull", far, "--store", bench.home / "other").expect(0).out


def test_two_pulls_at_once(second: ProjectFixture, far: Path) -> None:
    both = [second.start("store", "pull", far, "--store", second.store) for _ in range(2)]
    for each in [ended(process) for process in both]:
        each.expect(0)
        assert "warning" not in each.err
    assert second.built(second.home / "small.yaml").json["built"] == []
    assert second.leftovers() == [] and second.verify().code == 0
