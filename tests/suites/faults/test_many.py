"""F12, F19: many processes on one store, gc among them; branches side by side, and what must run alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from project import ProjectFixture, ended, pids_in, put_down, until

from cpu_pipeline.store import gc as collector
from cpu_pipeline.store.local import Store


def test_eight_processes_on_an_absent_store(bench: ProjectFixture) -> None:
    """F12: all succeed, each stage ran once, equal digests, one whole version."""
    recipe = bench.recipe({"id": "one", "seconds": 0.2}, {"id": "two", "text": "two"})
    commands = [bench.start(*bench.run_arguments(recipe, "--json")) for _ in range(8)]
    results = [ended(command, 120).expect(0) for command in commands]
    assert len({str(sorted(said.digests.items())) for said in results}) == 1
    assert sorted(line.split()[1] for line in bench.lines("began")) == ["same", "two"]
    built = [name for said in results for name in said.json["built"]]
    assert sorted(built) == ["model", "model:files", "one", "two"]
    assert bench.verify().code == 0
    assert bench.call("verify", bench.out / "small" / "latest").code == 0
    assert bench.leftovers() == []


def gc(bench: ProjectFixture, *more: str) -> subprocess.Popen[str]:
    return bench.start("store", "gc", "--keep-days", "0", "--store", bench.store, *more)


def test_gc_during_a_build(bench: ProjectFixture, tmp_path: Path) -> None:
    """F19: gc keeps all that a running build uses, and what another one left goes."""
    bench.built(bench.recipe({"id": "old", "text": "old"}, name="old"))
    shutil.rmtree(bench.out)  # what is published stays
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one"}, {"id": "two", "text": "two", "act": "wait", "to": to})
    command = bench.start(*bench.run_arguments(recipe, "--json"))
    with put_down(command):
        pids_in(to)
        collected = ended(gc(bench)).expect(0)
        assert "object" in collected.out
        to.unlink()
        said = ended(command).expect(0)
    assert said.json["built"] == ["one", "two"]
    assert bench.verify().code == 0
    assert bench.built(recipe).json["built"] == []
    assert bench.built(bench.recipe({"id": "old", "text": "old"}, name="old")).json["built"] == ["old"]


def test_build_during_gc(bench: ProjectFixture) -> None:
    """F19: a second gc says who holds it (75); a build goes on; afterwards gc works."""
    recipe = bench.recipe({"id": "one"})
    bench.built(recipe)
    with collector._alone(Store(bench.store)):
        ended(gc(bench)).expect(75, "another gc is at work (pid ", "try again")
        bench.built(bench.recipe({"id": "one"}, {"id": "two", "text": "two"}))
    ended(gc(bench)).expect(0)
    assert bench.verify().code == 0


def test_builds_and_gcs_all_at_once(bench: ProjectFixture) -> None:
    """F19: whatever they do to each other, every build succeeds with the same result, and the store stays sound."""
    steps = ({"id": "one", "seconds": 0.1}, {"id": "two", "text": "two", "seconds": 0.1})
    recipe = bench.recipe(*steps)
    wanted = bench.built(recipe).digests
    builds = [bench.start(*bench.run_arguments(recipe, "--json")) for _ in range(3)]
    collections = 0
    while any(command.poll() is None for command in builds):
        assert ended(gc(bench)).code == 0
        collections += 1
    for command in builds:
        assert ended(command).expect(0).digests == wanted
    assert collections
    assert bench.verify().code == 0


def spans(bench: ProjectFixture, what: str) -> list[tuple[float, float]]:
    return [(float(line.split()[2]), float(line.split()[3])) for line in bench.lines(f"ended {what}")]


def test_branches_side_by_side(bench: ProjectFixture, tmp_path: Path) -> None:
    """--jobs 2: two branches run at the same time; with --jobs 1 one after the other."""
    branches = [
        {"id": n, "text": n, "act": "wait", "to": tmp_path / n, "from": {"model": "model"}} for n in ("left", "right")
    ]
    command = bench.start(*bench.run_arguments(bench.recipe(*branches), "--jobs", "2"))
    with put_down(command):
        for name in ("left", "right"):  # neither ends before its file is removed
            pids_in(tmp_path / name)
        for name in ("left", "right"):
            (tmp_path / name).unlink()
        ended(command).expect(0)
    again = [{"id": n, "text": f"{n}-again", "seconds": 0.2, "from": {"model": "model"}} for n in ("left", "right")]
    bench.built(bench.recipe(*again), "--jobs", "1")
    [left], [right] = spans(bench, "left-again"), spans(bench, "right-again")
    assert left[1] <= right[0] or right[1] <= left[0]


def test_measuring_runs_alone(bench: ProjectFixture, tmp_path: Path) -> None:
    """What measures overlaps with nothing: not in its own build, not with a build of another store."""
    measure = {"id": "speed", "use": "faulty.measure", "seconds": 0.5, "from": {"candidate": "model"}}
    branches = [{"id": n, "text": n, "seconds": 0.3, "from": {"model": "model"}} for n in ("left", "right")]
    recipe = bench.recipe(branches[0], measure, branches[1])
    other = ProjectFixture(tmp_path / "other")
    other.runs = bench.runs
    commands = [
        bench.start(*bench.run_arguments(recipe, "--jobs", "3")),
        other.start(*other.run_arguments(other.recipe(measure, branches[0]), "--jobs", "2")),
    ]
    for command in commands:
        ended(command).expect(0)
    measured = spans(bench, "measure")
    assert len(measured) == 2
    everything = measured + spans(bench, "left") + spans(bench, "right")
    for begin, end in measured:
        assert [span for span in everything if span[0] < end and begin < span[1]] == [(begin, end)]


def test_waiting_for_another_build(bench: ProjectFixture, tmp_path: Path) -> None:
    """A step that another process is building is waited for, not built twice."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one", "act": "wait", "to": to})
    first = bench.start(*bench.run_arguments(recipe))
    with put_down(first):
        pids_in(to)
        second = bench.start(*bench.run_arguments(recipe, "--json"))
        with put_down(second):
            assert second.stderr is not None
            lines: list[str] = []
            until(lambda: lines.append(second.stderr.readline()) or "waiting" in lines[-1])  # type: ignore[union-attr,func-returns-value]
            assert "another build is making it" in lines[-1]
            to.unlink()
            assert ended(second).expect(0).json["built"] == []
        ended(first).expect(0)
    assert len(bench.lines("began")) == 1
