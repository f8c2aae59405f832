"""F1, F2, F7, F12 for refresh: killed, twice at once, on a full disk; what is in service is always whole."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from forks import Forks, writes
from project import ProjectFixture, ended, family, pids_in, put_down, until
from suites.faults.refreshing import SCORED, arguments, in_service, killing, upstream


@pytest.fixture
def forks(bench: ProjectFixture) -> Iterator[Forks]:
    """A process that forks the commands of one test."""
    made = Forks(bench.environment(), bench.home)
    yield made
    made.close()


def test_a_refresh_killed_at_any_write(bench: ProjectFixture, forks: Forks) -> None:
    """From the building to the promotion, the lock, the versions beyond `keep` and the memory of it."""
    kill, at = killing(bench, forks), 0
    for at in writes(23):
        if not kill(at):
            break
    assert at > 150, "the sweep has lost its grip on the writes"


def test_the_children_of_a_killed_refresh_die_with_it(bench: ProjectFixture) -> None:
    told = bench.home / "pids.json"
    recipe = bench.recipe({"id": "made", "act": "hang", "to": told})
    process = bench.start(*arguments(bench, recipe))
    with put_down(process):
        workers = pids_in(told)
        there = {*workers, *family(process)}
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not [pid for pid in there if psutil.pid_exists(pid)])
    bench.recipe({"id": "made"})
    bench.call(*arguments(bench, recipe)).expect(0)
    in_service(bench)
    runs = bench.call("history", "--json", "--store", bench.store).expect(0).json["runs"]
    assert [one["outcome"] for one in runs] == ["done", "died"]


def test_four_refreshes_at_once(bench: ProjectFixture) -> None:
    upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    bench.call(*arguments(bench, recipe)).expect(0)
    old, ran = in_service(bench), len(bench.lines("began"))
    upstream(bench, score=1.5)
    started = [bench.start(*arguments(bench, recipe)) for _ in range(4)]
    done = [json.loads(ended(process).expect(0).out) for process in started]
    assert sorted(one["outcome"] for one in done) == ["fresh", "fresh", "fresh", "promoted"]
    assert {one["version"] for one in done} == {in_service(bench)} != {old}
    assert len(bench.lines("began")) == ran + 1, "one of them built it"
    assert bench.leftovers() == []


def test_a_disk_that_is_full_while_it_builds(bench: ProjectFixture) -> None:
    upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    bench.call(*arguments(bench, recipe)).expect(0)
    old, text = in_service(bench), recipe.with_suffix(".lock").read_bytes()
    bench.recipe({"id": "made", "text": "new", "act": "full"}, SCORED[1])
    done = bench.call(*arguments(bench, recipe)).expect(75, "no space is left")
    assert json.loads(done.out)["exit_code"] == 75
    assert in_service(bench) == old
    assert recipe.with_suffix(".lock").read_bytes() == text
    bench.recipe({"id": "made", "text": "new"}, SCORED[1])
    bench.call(*arguments(bench, recipe)).expect(0, "promoted")


@pytest.mark.parametrize("most", [0, 300, 1500, 5000])
def test_a_disk_that_is_full_at_any_file(bench: ProjectFixture, most: int) -> None:
    """No file may grow past `most` bytes: not of the store, of the version, of the lock or of the memory of it."""
    upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    bench.call(*arguments(bench, recipe)).expect(0)
    old, text = in_service(bench), recipe.with_suffix(".lock").read_bytes()
    upstream(bench, score=1.5)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"
    main = "import sys; from cpu_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", f"{limit}; {main}", *map(str, arguments(bench, recipe))]
    full = subprocess.run(command, cwd=bench.home, env=bench.environment(), capture_output=True, text=True, check=False)
    assert full.returncode == 75, full.stderr
    assert "largest size allowed on /" in full.stderr
    assert in_service(bench) == old
    assert recipe.with_suffix(".lock").read_bytes() == text
    assert bench.verify().code == 0
    bench.call(*arguments(bench, recipe)).expect(0, "promoted")


def test_a_lock_that_cannot_be_written(bench: ProjectFixture) -> None:
    """What was promoted is told by the next refresh, which finds the lock not written."""
    recipe = bench.recipe(*SCORED)
    place = recipe.with_suffix(".lock")
    place.mkdir()
    bench.call(*arguments(bench, recipe)).expect(2, "small.lock")
    place.rmdir()
    bench.call(*arguments(bench, recipe)).expect(0, "promoted")
