"""Signals at many moments of every command: the signal's exit code, no traceback, nothing left behind."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from project import CommandResult, ProjectFixture, alive, ended, family, put_down, until
from suites.faults.test_changes import hooked

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SEEDS = range(8)
COMMANDS = (
    ("run", "small.yaml", "--jobs", "2"),
    ("run", "small.yaml", "other.yaml"),
    ("run", "small.yaml", "--set", "gate.at_least=2.0"),
    ("run", "small.yaml", "--limit", "5"),
    ("lock", "small.yaml"),
    ("refresh", "small.yaml"),
    ("plan", "small.yaml"),
    ("status", "small.yaml"),
    ("history",),
    ("store", "gc"),
    ("store", "verify"),
    ("check", "small.yaml"),
)


def recipes(bench: ProjectFixture) -> None:
    """Write two recipes of short steps, with a measurement and a gate."""
    for name in ("other", "small"):
        bench.recipe(
            {"id": "one", "text": name, "seconds": 0.2},
            {"id": "two", "text": f"{name} two", "pieces": 50, "seconds": 0.1},
            {"id": "gate", "use": "faulty.gate"},
            {"id": "speed", "use": "faulty.measure", "seconds": 0.2},
            name=name,
        )


def sent(bench: ProjectFixture, arguments: tuple[str, ...], number: int, after: float, times: int) -> CommandResult:
    """Begin a command, send it a signal after some seconds, `times` times; check that its children end with it."""
    command = bench.start(*arguments, CPU_PIPELINE_STORE=str(bench.store))
    with put_down(command):
        time.sleep(after)
        children = family(command) if command.poll() is None else []
        for _ in range(times):
            if command.poll() is None:
                os.kill(command.pid, number)
                time.sleep(0.01)
        said = ended(command)
    until(lambda: not alive(children))
    return said


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_signal_at_any_moment(bench: ProjectFixture, arguments: tuple[str, ...]) -> None:
    recipes(bench)
    chance = random.Random(str(arguments))
    fine = {0, 3, 5}  # it was done before the signal came
    seen = set()
    for seed in SEEDS:
        number = list(CODES)[seed % 3]
        # Not before Python itself has started: what it says to Ctrl-C then is its own. The first come early for sure.
        after = 0.12 + 0.02 * seed if seed < 2 else 0.3 + chance.random() * (0.4 + 0.4 * seed)
        said = sent(bench, arguments, number, after, times=1 + seed % 2)
        assert said.code in {CODES[number], -number, *fine}, f"{said.code}\n{said.err}"
        for word in ("Traceback", "a bug", "Exception ignored", "KeyboardInterrupt"):
            assert word not in said.err, said.err
        seen.add(said.code)
    assert seen - fine, "no signal came in time: this test shows nothing"
    for name in ("small", "other"):  # what a step had in its scratch directory waits for the step
        bench.run(bench.home / f"{name}.yaml").expect(0)
    assert bench.verify().code == 0 and bench.leftovers() == []


@pytest.mark.parametrize("arguments", ["run small.yaml", "plan small.yaml", "history", "stages"])
def test_a_signal_at_every_part_of_a_command(bench: ProjectFixture, tmp_path: Path, arguments: str) -> None:
    """At its first import, in the middle, and at the last file that it opens: the same moments each time."""
    bench.recipe({"id": "one"})
    count, words = tmp_path / "count", arguments.split()
    told = {"CPU_PIPELINE_STORE": str(bench.store), "FAULT_COUNT": str(count), "FAULT_SIGNAL": "0"}
    for _ in range(2):  # what is built once takes another way later; the second time counts
        bench.call(*words, **hooked(bench, "send", FAULT_AT="0", **told)).expect(0)
    last = int(count.read_text())
    moments = [1, 2, 10, last // 4, last // 2, last * 3 // 4, last - 20, last - 3, last - 1, last]
    ended_by = set()
    for turn, at in enumerate(moments):
        number = list(CODES)[turn % 3]
        told["FAULT_SIGNAL"] = str(int(number))
        said = bench.call(*words, **hooked(bench, "send", FAULT_AT=str(at), **told))
        # After its last word a command is done. Before its first it is ended by the signal itself.
        assert said.code in {CODES[number], -number, *({0} if at > last // 2 else ())}, f"at {at} of {last}\n{said.err}"
        for word in ("Traceback", "a bug", "Exception ignored", "KeyboardInterrupt"):
            assert word not in said.err, f"at {at} of {last}\n{said.err}"
        ended_by.add(said.code)
    assert {130, 143, 129} & ended_by
    bench.call(*words, CPU_PIPELINE_STORE=str(bench.store)).expect(0)
    assert bench.leftovers() == []
