"""F2-F6: commands and stages that are killed, interrupted, crash or hang."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from project import ROOT, CommandResult, ProjectFixture, alive, ended, family, pids_in, put_down, until

HOOKS = ROOT / "tests" / "suites" / "faults" / "hooks"


def interrupted(
    bench: ProjectFixture, recipe: Path, number: int, to: Path, *, again: bool = False, **env: str
) -> tuple[CommandResult, list[int]]:
    """Start a run, wait until a stage has written its pids into `to`, send a signal; `again` until it ends."""
    command = bench.start(*bench.run_arguments(recipe), **env)
    with put_down(command):
        pids = pids_in(to) + family(command)
        os.kill(command.pid, number)
        while again and command.poll() is None:
            time.sleep(0.5)
            os.kill(command.pid, number)
        return ended(command), pids


def test_killed_command_takes_its_children_along(bench: ProjectFixture, tmp_path: Path) -> None:
    """F2: SIGKILL of the command ends its workers, though they ignore SIGTERM; the next run goes on."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one"}, {"id": "two", "text": "two", "act": "hang", "to": to})
    said, pids = interrupted(bench, recipe, signal.SIGKILL, to)
    assert said.code == -signal.SIGKILL
    assert len(pids) > 1
    until(lambda: not alive(pids))
    after = bench.built(recipe, "--set", "two.act=nothing")
    assert after.json["built"] == ["two"]
    assert bench.verify().code == 0
    assert bench.leftovers() == []


def test_ctrl_c_once(bench: ProjectFixture, tmp_path: Path) -> None:
    """F3: children end, what is finished is kept, a line says how to go on, 130."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one"}, {"id": "two", "text": "two", "act": "wait", "to": to})
    said, pids = interrupted(bench, recipe, signal.SIGINT, to)
    said.expect(130, "the same command goes on")
    until(lambda: not alive(pids))
    to.unlink()
    assert bench.leftovers() == ["store/scratch/" + p.name for p in (bench.store / "scratch").iterdir()]
    assert bench.built(recipe, "--set", "two.act=nothing").json["built"] == ["two"]
    assert bench.leftovers() == []


def test_ctrl_c_twice_ends_at_once(bench: ProjectFixture, tmp_path: Path) -> None:
    """F3: the second does not wait for a stage that ignores SIGTERM: here the first would wait for an hour."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one", "act": "hang", "to": to})
    hour = {"PYTHONPATH": os.pathsep.join([str(HOOKS), bench.environment()["PYTHONPATH"]]), "FAULT_HOOK": "patience"}
    said, pids = interrupted(bench, recipe, signal.SIGINT, to, again=True, **hour)
    said.expect(130)
    until(lambda: not alive(pids))


def test_sigterm(bench: ProjectFixture, tmp_path: Path) -> None:
    """SIGTERM is like Ctrl-C, with the exit code of its own signal."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one", "act": "wait", "to": to})
    said, pids = interrupted(bench, recipe, signal.SIGTERM, to)
    said.expect(143, "the same command goes on")
    assert bench.call("history", "--store", bench.store, "--json").json["runs"][0]["exit_code"] == 143
    until(lambda: not alive(pids))


def test_stage_killed_for_memory(bench: ProjectFixture, tmp_path: Path) -> None:
    """F4: says so, with the peak that was seen; the other branch is built and kept."""
    to = tmp_path / "pids"
    recipe = bench.recipe(
        {"id": "greedy", "act": "memory", "to": to},
        {"id": "modest", "text": "modest", "from": {"model": "model"}},
        {"id": "after", "text": "after", "from": {"model": "greedy"}},
    )
    said = bench.run(recipe).expect(1, "step `greedy` (faulty.copy): killed", "peak 0.", "skipped   after")
    assert " of " in said.err
    assert len(bench.lines("ended modest")) == 1
    assert not bench.out.exists()
    after = bench.built(recipe, "--set", "greedy.act=nothing")
    assert sorted(after.json["built"]) == ["after", "greedy"]


@pytest.mark.parametrize("act", ["kill", "half"])
def test_stage_killed_leaves_nothing(bench: ProjectFixture, act: str) -> None:
    """What a killed stage had half written never becomes an artifact."""
    recipe = bench.recipe({"id": "one", "act": act})
    bench.run(recipe).expect(1, "killed (SIGKILL)", "step `one`")
    assert bench.verify().code == 0
    assert [p for p in bench.store.rglob("half.bin") if "objects" in p.parts] == []
    [made] = bench.built(recipe, "--set", "one.act=nothing").json["outputs"].values()
    assert not (bench.store / "objects" / made["digest"][:2] / made["digest"] / "half.bin").exists()


def test_segfault(bench: ProjectFixture) -> None:
    """F5: names the signal, the step and the last lines of its log; this process lives on."""
    recipe = bench.recipe({"id": "one", "act": "segfault"})
    bench.run(recipe).expect(1, "SIGSEGV", "step `one` (faulty.copy)", "about to read address 0", "its log is ")


def test_exit_in_the_middle(bench: ProjectFixture) -> None:
    """A library that calls exit() is a failed step, too."""
    bench.run(bench.recipe({"id": "one", "act": "exit"})).expect(1, "step `one`", "exit code 3")


def test_hang(bench: ProjectFixture, tmp_path: Path) -> None:
    """F6: a step past its timeout gets SIGTERM, then SIGKILL; a later run can do it."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one", "act": "hang", "to": to, "timeout": 0.5})
    said = bench.run(recipe).expect(1, "step `one`", "timeout of 0.5 s")
    assert "its log is" in said.err
    assert not alive(pids_in(to))
    bench.built(bench.recipe({"id": "one"}))


def test_grandchildren_end_with_their_stage(bench: ProjectFixture, tmp_path: Path) -> None:
    """A process that a stage has started goes with it, when it times out and when the build is interrupted."""
    to = tmp_path / "pids"
    recipe = bench.recipe({"id": "one", "act": "spawn", "to": to, "timeout": 1.5})
    bench.run(recipe).expect(1, "timeout")
    pids = pids_in(to)
    assert len(pids) == 2
    until(lambda: not alive(pids))
    to.unlink()
    _, pids = interrupted(bench, bench.recipe({"id": "one", "act": "spawn", "to": to}), signal.SIGINT, to)
    until(lambda: not alive(pids))


def test_exception(bench: ProjectFixture) -> None:
    """An exception of a library is one line with the step; its traceback is in the log."""
    said = bench.run(bench.recipe({"id": "one", "act": "raise"}))
    said.expect(1, "error: step `one` (faulty.copy): ValueError: two lines of trouble; its log is ")
    log = Path(said.err.split("its log is ")[-1].split(", which")[0])
    assert "Traceback" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(("act", "says"), [("facts", "not JSON"), ("link", "link")])
def test_broken_promises(bench: ProjectFixture, act: str, says: str) -> None:
    """A stage that returns no JSON, or leaves a link, fails; nothing of it is kept."""
    bench.run(bench.recipe({"id": "one", "act": act})).expect(1, "step `one`", says)
    assert bench.verify().code == 0


def test_failures_are_not_cached(bench: ProjectFixture) -> None:
    """The same command tries again."""
    recipe = bench.recipe({"id": "one", "act": "raise"})
    for _ in range(2):
        bench.run(recipe).expect(1)
    assert len(bench.lines("began")) == 2
