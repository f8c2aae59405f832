"""Runs steps in child processes of the build, on its machine. A healthy child is used for step after step."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cpu_pipeline.core.errors import PipelineError, StageFailed
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT, Interpreter
from cpu_pipeline.engine.executors._base import Handle, StepAdvance, StepOutcome, StepRequest
from cpu_pipeline.engine.worker.process import WorkerProcess, tail
from cpu_pipeline.engine.worker.protocol import Ran, Run

SAMPLE = 0.5
"""Seconds between measurements of the children's memory."""
HEAVY = 768 << 20
"""Bytes that a child may still hold after a step and be used again; they add to the next step's peak."""


@dataclass
class _Running:
    """A step and the child that runs it."""

    request: StepRequest
    child: WorkerProcess
    began: float
    """`time.monotonic()` of its start."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def late(self) -> bool:
        return self.request.timeout is not None and self.seconds > self.request.timeout


class LocalExecutor:
    """Runs each step in a child process (see `_base.Executor`)."""

    def __init__(self) -> None:
        self._running: dict[Handle, _Running] = {}
        self._idle: list[WorkerProcess] = []
        self._numbers = itertools.count(1)
        self._sampled = 0.0

    def start(self, request: StepRequest) -> Handle:
        """Start a step in an idle child, or in a new one."""
        interpreters = {name: environments.interpreter(name) for name in {DEFAULT, *request.environments}}
        request.log.unlink(missing_ok=True)
        child = self._take_child(interpreters[request.environment], request.online)
        handle = Handle(next(self._numbers))
        # Registered before the request: `close` ends the child though an interruption comes in between.
        self._running[handle] = _Running(request, child, time.monotonic())
        child.ask(
            Run(
                use=request.use,
                options=request.options,
                inputs=request.inputs,
                data=request.data,
                out=request.out,
                scratch=request.scratch,
                log=request.log,
                task=request.task,
                threads=request.threads,
                isa=request.isa,
                allow=request.allow,
                environment=request.environment,
                interpreters=interpreters,
            )
        )
        return handle

    def poll(self, seconds: float) -> list[StepOutcome | StepAdvance]:
        """Wait at most `seconds` for a child to write or die; end the steps whose time is over."""
        with selectors.DefaultSelector() as ready:
            for handle, running in self._running.items():
                ready.register(running.child.replies, selectors.EVENT_READ, handle)
            news = [item for key, _ in ready.select(seconds) for item in self._read(key.data)]
        self._sample()
        return news + [self._give_up(handle) for handle, running in list(self._running.items()) if running.late]

    def stop(self, handle: Handle, grace: float) -> None:
        """End a step's child and what it started."""
        if (running := self._running.pop(handle, None)) is not None:
            _end(running.child, grace)

    def close(self, grace: float = 0.0) -> None:
        """End every child; those that are idle end by themselves."""
        try:
            if grace:
                for running in self._running.values():
                    running.child.stop(grace)
        finally:
            for running in self._running.values():
                running.child.kill()
            self._running.clear()
            for child in self._idle:
                child.close()
            self._idle.clear()

    def _read(self, handle: Handle) -> Iterator[StepOutcome | StepAdvance]:
        """Read what a child has written: how far it is, its reply, or how it died."""
        child = self._running[handle].child
        while True:
            try:
                found = child.take(Ran)
            except PipelineError as error:
                yield self._finish(handle, error)
                return
            if isinstance(found, Ran):
                yield self._finish(handle, found)
                return
            if found is not None:
                yield StepAdvance(handle, found.progress, found.done, found.total)
            if not child.has_line:
                return

    def _finish(self, handle: Handle, result: Ran | PipelineError) -> StepOutcome:
        """Note that a step has ended, and keep its child if that is well."""
        running = self._running[handle]
        seconds = running.seconds
        if isinstance(result, PipelineError):
            running.child.kill()
            if result.exit_code == StageFailed.exit_code:
                result = with_log(result, running.request.log)
        else:
            self._give_back(running.child)
        del self._running[handle]
        return StepOutcome(handle, seconds, result)

    def _give_up(self, handle: Handle) -> StepOutcome:
        """Stop a step that ran longer than its timeout."""
        running = self._running[handle]
        seconds = running.seconds
        running.child.stop()
        del self._running[handle]
        error = StageFailed(f"stopped: it ran longer than its timeout of {running.request.timeout:g} s")
        return StepOutcome(handle, seconds, with_log(error, running.request.log))

    def _sample(self) -> None:
        """Measure the memory of the children, now and then: a child that is killed cannot report its own."""
        if time.monotonic() - self._sampled > SAMPLE:
            self._sampled = time.monotonic()
            for running in self._running.values():
                running.child.sample()

    def _take_child(self, interpreter: Interpreter, online: bool) -> WorkerProcess:
        """Take an idle child or start one. A child that is online runs online steps only."""
        for child in self._idle:
            if child.online == online and child.interpreter == interpreter:
                self._idle.remove(child)
                return child
        return WorkerProcess(interpreter, online)

    def _give_back(self, child: WorkerProcess) -> None:
        """Keep a child for the next step, unless it still holds much memory."""
        heavy = True
        with contextlib.suppress(psutil.Error):
            heavy = psutil.Process(child.process.pid).memory_info().rss > HEAVY
        if heavy:
            child.close()
        else:
            self._idle.append(child)


def with_log(error: PipelineError, log: Path) -> PipelineError:
    """Add the path and the last lines of a log to an error."""
    lines = "".join(f"\n    {line}" for line in tail(log))
    return type(error)(f"{error}; its log is {log}" + (f", which ends:{lines}" if lines else ""))


def _end(child: WorkerProcess, grace: float) -> None:
    if grace:
        child.stop(grace)
    else:
        child.kill()
