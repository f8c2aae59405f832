"""What is remembered of runs and promotions survives kills, full disks and each other; what is lost is only memory."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import ProjectFixture, ended, pids_in, put_down
from suites.faults.test_disk import limited, without_override

from cpu_pipeline.release import latest, manifest, promotions
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import recorder
from cpu_pipeline.store.runs.reader import RunEntry

CHAIN = ({"id": "one", "runs": "runs.txt"}, {"id": "gate", "use": "faulty.gate", "runs": "runs.txt"})


def runs(bench: ProjectFixture) -> list[RunEntry]:
    return recorder.runs(Store(bench.store))


def events(bench: ProjectFixture, entry: RunEntry) -> list[dict[str, Any]]:
    text = (bench.store / "runs" / entry.id / "events.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_that_is_killed_is_listed_as_one_that_died(bench: ProjectFixture, tmp_path: Path) -> None:
    """While it lives it runs; once it is killed it died; every event up to then is there."""
    to = tmp_path / "pids"
    command = bench.start(*bench.run_arguments(bench.recipe({"id": "one", "act": "wait", "to": to})))
    with put_down(command):
        pids_in(to)
        [entry] = runs(bench)
        assert (entry.outcome, entry.command, entry.name) == ("running", "run", "small")
        command.send_signal(signal.SIGKILL)
        command.wait()
    [entry] = runs(bench)
    assert entry.outcome == "died"
    assert (events(bench, entry)[-1]["node"], events(bench, entry)[-1]["what"]) == ("one", "building")
    to.unlink()
    said = bench.call("status", "small.yaml", "--store", bench.store, "--out", bench.out)
    said.expect(5, "nothing is in service", "the last run died")


def test_a_run_that_is_stopped_is_remembered(bench: ProjectFixture, tmp_path: Path) -> None:
    to = tmp_path / "pids"
    command = bench.start(*bench.run_arguments(bench.recipe({"id": "one", "act": "wait", "to": to})))
    with put_down(command):
        pids_in(to)
        command.send_signal(signal.SIGINT)
        assert ended(command).code == 130
    [entry] = runs(bench)
    assert (entry.outcome, entry.exit_code) == ("interrupted", 130)


def test_two_runs_at_once_are_two_records(bench: ProjectFixture) -> None:
    """Both are whole, in the index too; one version, promoted once."""
    recipe = bench.recipe(*CHAIN)
    for command in [bench.start(*bench.run_arguments(recipe)) for _ in range(3)]:
        ended(command).expect(0)
    found = runs(bench)
    assert [entry.outcome for entry in found] == ["done"] * 3
    assert len({entry.id for entry in found}) == 3 and len({entry.version for entry in found}) == 1
    made = [json.loads((bench.store / "runs" / e.id / "run.json").read_text())["steps"]["made"] for e in found]
    assert sorted(name for names in made for name in names) == ["gate", "model", "model:files", "one"]
    assert len(promotions.promoted(bench.out / "small")) == 1
    assert bench.leftovers() == []


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:4000]),
        directory,
    ],
    ids=["cut", "a directory"],
)
def test_without_the_index_everything_works_as_with_it(bench: ProjectFixture, damage: Callable[[Path], object]) -> None:
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    damage(bench.store / "runs.sqlite")
    assert bench.built(recipe).json["built"] == []
    said = bench.call("history", "--json", "--store", bench.store).expect(0)
    assert [run["outcome"] for run in said.json["runs"]] == ["done", "done"] and said.err == ""
    bench.call("status", recipe, "--store", bench.store, "--out", bench.out).expect(0)
    assert bench.verify().code == 0


@pytest.mark.parametrize("most", [100, 400, 2500])
def test_a_disk_that_fills_while_recording(bench: ProjectFixture, most: int) -> None:
    """F7: everything is kept, and no file may grow past `most`: 75 or done, and the next run is whole."""
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    shutil.rmtree(bench.store / "runs")
    (bench.store / "runs.sqlite").unlink()
    arguments = bench.run_arguments(recipe)
    full = limited(bench, arguments, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    if full.code:
        full.expect(75, "largest size allowed on /", "run the same command again")
    assert full.code or most >= 2500, "a record of that size is none"
    latest = bench.out / "small" / "latest"
    assert manifest.edited(latest) == []
    bench.built(recipe)
    outcomes = [entry.outcome for entry in runs(bench)]
    assert outcomes[0] == "done" and set(outcomes[1:]) <= {"done", "died"}
    assert bench.leftovers() == []


def test_a_full_disk_lets_no_promotion_go_half_way(bench: ProjectFixture) -> None:
    """F7: `latest` names a whole version, and what moved is told, wherever the disk fills up."""
    bench.built(bench.recipe(*CHAIN))
    first = latest.latest(bench.out / "small")
    recipe = bench.recipe({**CHAIN[0], "text": "two"}, CHAIN[1])
    bench.built(recipe)
    second = latest.latest(bench.out / "small")
    for most in (0, 150, 330):
        arguments = ["rollback", "small", first, "--store", bench.store, "--out", bench.out]
        said = limited(bench, arguments, lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
        home = bench.out / "small"
        assert said.code in (0, 75), said.err
        assert latest.latest(home) in (first, second) and manifest.edited(home / "latest") == []
        assert promotions.promoted(home)[-1].version == latest.latest(home)
        bench.call("rollback", "small", second, "--store", bench.store, "--out", bench.out).expect(0)
        assert [p.version for p in promotions.promoted(home)][:2] == [first, second]
        assert bench.leftovers() == []


def test_a_store_that_takes_no_record_builds_all_the_same(bench: ProjectFixture) -> None:
    """F13: only the room of the runs is closed: a warning, and the build is as good as ever."""
    recipe = bench.recipe(*CHAIN)
    (bench.store / "runs").mkdir(parents=True)
    (bench.store / "CACHEDIR.TAG").touch()
    (bench.store / "runs").chmod(0o555)
    said = limited(bench, bench.run_arguments(recipe), without_override).expect(0, "warning   history", "not writable")
    assert "this run is not recorded" in said.err and list((bench.store / "runs").iterdir()) == []
    (bench.store / "runs").chmod(0o755)
    assert (bench.out / "small" / "latest").is_dir()


def test_a_store_that_is_closed_can_be_looked_at(bench: ProjectFixture) -> None:
    """F13: history and status of a read-only store."""
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    folders = [bench.store, *(path for path in bench.store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        for index in (True, False):
            listed = limited(bench, ["history", "--store", bench.store], without_override).expect(0)
            assert listed.out.split()[5] == "done"
            limited(bench, ["status", recipe, "--store", bench.store], without_override).expect(0)
            if index:
                bench.store.chmod(0o755)
                (bench.store / "runs.sqlite").unlink()
                bench.store.chmod(0o555)
        reindex = limited(bench, ["history", "--reindex", "--store", bench.store], without_override)
        reindex.expect(2, "runs.sqlite", "can't be written")
    finally:
        for folder in folders:
            folder.chmod(0o755)
