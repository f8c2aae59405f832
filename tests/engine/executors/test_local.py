"""Steps in child processes: each ends in one outcome, whatever happens to its process."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from project import PLUGIN, write_model

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed
from cpu_pipeline.engine.executors import local
from cpu_pipeline.engine.executors._base import Executor, StepAdvance, StepOutcome, StepRequest
from cpu_pipeline.engine.executors.local import LocalExecutor
from cpu_pipeline.engine.worker.protocol import Ran

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.syspath_prepend(PLUGIN)
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture
def model(tmp_path: Path) -> Artifact:
    write_model(tmp_path / "model")
    return Artifact("hf", tmp_path / "model", "0" * 64, {})


def step(model: Artifact, name: str = "step", timeout: float | None = None, **options: Any) -> StepRequest:
    home = model.path.parent / name
    for folder in ("out", "scratch"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    return StepRequest(
        use="faulty.copy", options=options, inputs={"model": model}, data={}, out=home / "out",
        scratch=home / "scratch", log=home / "log", task=None, threads=1, isa=("x86_64",), allow=(),
        environment="default", environments={"default"}, online=False, timeout=timeout,
    )  # fmt: skip


def outcomes(executor: Executor, count: int = 1, news: list[StepAdvance] | None = None) -> list[StepOutcome]:
    """Poll until so many steps have ended; `news` takes how far they were."""
    found: list[StepOutcome] = []
    limit = time.monotonic() + 120
    while len(found) < count:
        assert time.monotonic() < limit, f"{len(found)} of {count} steps ended"
        for item in executor.poll(0.1):
            if isinstance(item, StepOutcome):
                found.append(item)
            elif news is not None:
                news.append(item)
    return found


def pids(path: Path) -> list[int]:
    """Wait for the process numbers that a step writes."""
    limit = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < limit, "the step did not start"
        time.sleep(0.02)
    found: list[int] = json.loads(path.read_text())
    return found


def failure(outcome: StepOutcome) -> PipelineError:
    assert isinstance(outcome.result, PipelineError)
    return outcome.result


def gone(number: int) -> bool:
    """Wait a moment for a process that was killed to end; nobody may read a zombie's exit code."""
    limit = time.monotonic() + 120
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > limit:
                return False
            time.sleep(0.02)
    return True


def test_a_step_writes_its_output_and_reports_its_facts(executor: LocalExecutor, model: Artifact) -> None:
    request = step(model, text="hello")
    handle = executor.start(request)
    [outcome] = outcomes(executor)
    assert outcome.handle == handle and outcome.seconds > 0
    assert isinstance(outcome.result, Ran) and outcome.result.facts == {"threads": 1}
    assert outcome.result.peak_memory > 1 << 20
    assert (request.out / "marker.txt").read_text() == "hello\n"
    assert executor.poll(0) == []


def test_a_child_is_used_again_until_an_error_or_much_memory(
    executor: LocalExecutor, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for name, act in (("one", "nothing"), ("two", "raise"), ("three", "nothing"), ("four", "nothing")):
        executor.start(step(model, name, act=act))
        used += [running.child.process.pid for running in executor._running.values()]
        monkeypatch.setattr(local, "HEAVY", 0 if name == "three" else 1 << 40)
        outcomes(executor)
    one, two, three, four = used
    assert one == two != three != four


def test_steps_run_at_once_and_end_in_their_own_order(executor: LocalExecutor, model: Artifact) -> None:
    gate = model.path.parent / "gate"
    waiting = executor.start(step(model, "waits", act="wait", to=str(gate)))
    pids(gate)
    quick = executor.start(step(model, "quick"))
    assert [outcome.handle for outcome in outcomes(executor)] == [quick]
    gate.unlink()
    assert [outcome.handle for outcome in outcomes(executor)] == [waiting]


@pytest.mark.parametrize(
    ("act", "message", "logged"),
    [
        ("raise", "ValueError: two lines of trouble", 'raise ValueError("two'),
        ("segfault", "died of SIGSEGV in native code", "about to read address 0"),
        ("kill", "killed (SIGKILL)", ""),
        ("exit", "its process ended with exit code 3", ""),
    ],
)
def test_a_step_that_fails_says_why_and_shows_its_log(
    act: str, message: str, logged: str, executor: LocalExecutor, model: Artifact
) -> None:
    request = step(model, act=act)
    request.log.write_text("of an earlier try\n")
    executor.start(request)
    error = failure(*outcomes(executor))
    assert isinstance(error, StageFailed) and message in str(error) and f"its log is {request.log}" in str(error)
    assert "of an earlier try" not in str(error)
    assert logged in str(error) and ("which ends:" in str(error)) == bool(logged)


def test_a_step_that_is_late_is_stopped_with_what_it_started(executor: LocalExecutor, model: Artifact) -> None:
    told = model.path.parent / "pids"
    executor.start(step(model, timeout=3.0, act="spawn", to=str(told)))
    error = failure(*outcomes(executor))
    assert str(error).startswith("stopped: it ran longer than its timeout of 3 s; its log is ")
    assert all(gone(number) for number in pids(told))


@linux
def test_memory_of_a_child_that_is_killed_was_measured(
    executor: LocalExecutor, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SAMPLE", 0.0)
    executor.start(step(model, act="memory"))
    error = str(failure(*outcomes(executor)))
    peak = float(error.partition("peak ")[2].partition(" GiB")[0])
    assert peak >= 0.2


@pytest.mark.parametrize("grace", [0.0, 0.2])
def test_a_stopped_step_has_no_outcome_and_no_process(grace: float, executor: LocalExecutor, model: Artifact) -> None:
    told = model.path.parent / "pids"
    handle = executor.start(step(model, act="hang", to=str(told)))
    [number] = pids(told)
    executor.stop(handle, grace)
    executor.stop(handle, grace)
    assert gone(number) and executor.poll(0) == []


def test_closing_ends_every_child(executor: LocalExecutor, model: Artifact) -> None:
    told = model.path.parent / "pids"
    executor.start(step(model, "idle"))
    outcomes(executor)
    [idle] = executor._idle
    executor.start(step(model, "hangs", act="hang", to=str(told)))
    hanging = pids(told)
    executor.close()
    executor.close()
    assert all(gone(number) for number in [idle.process.pid, *hanging])


def test_a_missing_environment_is_an_error_of_the_start(
    executor: LocalExecutor, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPU_PIPELINE_ENVIRONMENTS", str(tmp_path / "none"))
    request = step(model)
    with pytest.raises(BackendMissing, match="env create ipex"):
        executor.start(StepRequest(**{**vars(request), "environments": {"default", "ipex"}}))
    assert executor.poll(0) == []


def test_what_ends_a_child_is_named(executor: LocalExecutor, model: Artifact) -> None:
    told = model.path.parent / "pids"
    executor.start(step(model, act="wait", to=str(told)))
    [number] = pids(told)
    psutil.Process(number).send_signal(signal.SIGTERM)
    assert "died of SIGTERM" in str(failure(*outcomes(executor)))


def test_a_step_tells_how_far_it_is(executor: LocalExecutor, model: Artifact) -> None:
    """In order, before its outcome, though it writes faster than anybody reads."""
    news: list[StepAdvance] = []
    handle = executor.start(step(model, pieces=500))
    [done] = outcomes(executor, news=news)
    assert isinstance(done.result, Ran)
    assert [(item.what, item.done, item.total) for item in news] == [(f"piece {n}", n + 1, 500) for n in range(500)]
    assert {item.handle for item in news} == {handle}
