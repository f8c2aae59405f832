"""The child process that runs steps, in the interpreter of its environment: it answers the requests of the build.

It reads requests as JSON lines, answers each with one (`process.py` writes them), sends what libraries print to the
node's log, and dies with its parent: by PR_SET_PDEATHSIG on Linux, by watching the parent on other systems.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed, TryAgain
from cpu_pipeline.core.model_io import StatefulSession, reset
from cpu_pipeline.engine.worker.exhausted import exhausted
from cpu_pipeline.engine.worker.protocol import (
    Advanced,
    Answer,
    Answered,
    Failed,
    Open,
    Opened,
    Ran,
    Reply,
    Request,
    Reset,
    ResetDone,
    Run,
    TaskSpec,
    Time,
    Timed,
    read_request,
    write_news,
    write_reply,
)
from cpu_pipeline.engine.worker.session import RemoteSession, TimedSession
from cpu_pipeline.stages._base import Job, Progress, stored_facts
from cpu_pipeline.store.local import disk_error

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.tasks._base import Task

PAUSE = 0.5
"""Seconds between two pieces of news of one kind."""
FULL = 1 << 20
"""A disk with fewer free bytes counts as full when a step fails that writes to it."""


def main() -> None:
    """Answer requests until the parent closes the pipe. The argument is the parent's process number."""
    replies = os.fdopen(os.dup(1), "wb")
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    _die_with_parent(int(sys.argv[1]))
    lines = os.fdopen(os.dup(0), "rb")
    os.dup2(devnull, 0)

    def send(text: bytes) -> None:
        replies.write(text)
        replies.flush()

    worker = Worker(send)
    while line := lines.readline():
        reply = write_reply(worker.reply(line))  # news went out before
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the log's disk may be the one that is full
                stream.flush()
        send(reply)


class Worker:
    """Answers one request after another; between them it keeps the artifact that was opened last."""

    def __init__(self, send: Callable[[bytes], None] = lambda _: None) -> None:
        self.session: Session | None = None
        self.send = send
        """Takes what goes to the build before the reply."""

    def reply(self, line: bytes) -> Reply:
        """Answer one request; every error becomes a reply."""
        out = Path()
        try:
            request = read_request(line)
            out = request.out if isinstance(request, Run) else out
            return self._do(request)
        except PipelineError as error:
            return Failed.of(exhausted(error) or error)
        except ModuleNotFoundError as error:
            _trace(error)
            return Failed.of(BackendMissing(f"{error.name} is not installed; pip install 'cpu-pipeline[build]'"))
        except Exception as error:  # any error of a library becomes the error of this step
            _trace(error)
            if (full := _full(error, out)) is not None:
                return Failed.of(full)
            return Failed.of(_unexpected(error))
        except BaseException as error:
            # A panic of Rust code (tokenizers, safetensors) is no Exception; one that ends the process stays.
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                raise
            _trace(error)
            return Failed.of(_unexpected(error))

    def _do(self, request: Request) -> Reply:
        match request:
            case Run():
                _log_to(request.log)
                return _run(request, News(self.send))
            case Open():
                if request.log is not None:
                    _log_to(request.log)
                backend = backends.get(request.artifact.format)
                self.session = backend.load(request.artifact.path, _task(request.task), request.threads)
                return Opened(tuple(self.session.inputs), isinstance(self.session, StatefulSession))
            case Reset():
                reset(self._opened())
                return ResetDone()
            case Answer():
                return _answer(request, self._opened())
            case Time():
                return _time(request, self._opened())
            case _:
                raise StageFailed(f"the worker has no answer to {type(request).__name__}")

    def _opened(self) -> Session:
        if self.session is None:
            raise StageFailed("the worker has opened no artifact")
        return self.session


class News:
    """Tells the build how far a step is, now and then: most stages could tell thousands of times."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._what, self._when = "", 0.0

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Send it, unless something like it went out just before."""
        now = time.monotonic()
        if what == self._what and now - self._when < PAUSE:
            return
        self._what, self._when = what, now
        with contextlib.suppress(OSError):
            self._send(write_news(Advanced(what, done, total)))


def _unexpected(error: BaseException) -> StageFailed:
    if (short := exhausted(error)) is not None:
        return short
    return StageFailed(f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")


def _trace(error: BaseException) -> None:
    """Print a traceback to the log, without this module's own frames: an error's message shows few lines of the log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    with contextlib.suppress(OSError):
        traceback.print_exception(type(error), error, trace)


def _full(error: BaseException, out: Path) -> TryAgain | None:
    """Return the error of a full disk if that is the cause; native libraries raise other errors then."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            found = disk_error(cause, Path(str(cause.filename or out)))
            if isinstance(found, TryAgain):
                return found
        cause = cause.__cause__ or cause.__context__
    with contextlib.suppress(OSError):
        if shutil.disk_usage(out).free < FULL:
            found = disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), out)
            return found if isinstance(found, TryAgain) else None
    return None


def _run(request: Run, news: Progress) -> Ran:
    task, threads = _task(request.task), request.threads
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    stage = stages.get(request.use)(**request.options)
    opened: list[RemoteSession] = []
    job = Job(
        load=lambda artifact: _load(artifact, task, request, opened),
        timer=lambda artifact: timer(artifact, request),
        source=sources.find,
        task=task,
        data=request.data,
        scratch=request.scratch,
        threads=threads,
        isa=request.isa,
        allow=frozenset(request.allow),
        progress=news,
    )
    _forget_peak()
    try:
        facts = stored_facts(stage.run(request.inputs, request.out, job))
    finally:
        for session in opened:
            session.close()
    try:
        json.dumps(facts, allow_nan=True)
    except TypeError as error:
        raise StageFailed(f"its facts are not JSON: {error}") from error
    return Ran(_finite(facts), peak_memory())


def _finite(value: Any) -> Any:
    """Write NaN and infinities as None: no number, which fails every comparison."""
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _load(artifact: Artifact, task: Task | None, request: Run, opened: list[RemoteSession]) -> Session:
    """Open an artifact in its backend's environment: in this process, or in a child of it; `opened` takes the child."""
    backend = backends.get(artifact.format)
    if request.environment == backend.ENVIRONMENT:
        return backend.load(artifact.path, task, request.threads)
    interpreter = request.interpreters[backend.ENVIRONMENT]
    opened.append(RemoteSession(Open(artifact, request.task, request.threads, request.log), interpreter))
    return opened[-1]


@contextmanager
def timer(artifact: Artifact, request: Run) -> Iterator[TimedSession]:
    """Open an artifact in a fresh process, in its backend's environment, pinned to `threads` cores.

    Args:
        artifact: what is measured.
        request: the step that measures; it has the task, the number of threads, the log and the interpreters.
    """
    interpreter = request.interpreters[backends.get(artifact.format).ENVIRONMENT]
    opening = Open(artifact, request.task, request.threads, request.log)
    session = TimedSession(opening, interpreter, host.pinned(request.threads))
    try:
        yield session
    finally:
        session.close()


def _answer(request: Answer, session: Session) -> Answered:
    import numpy as np

    with np.load(request.inputs) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(request.outputs, **session(arrays))  # type: ignore[arg-type]  # numpy types savez's keywords as bool
    return Answered()


def _time(request: Time, session: Session) -> Timed:
    import numpy as np

    batches: dict[str, dict[str, Any]] = {}
    with np.load(request.batches) as file:
        for name in file.files:
            number, _, key = name.partition(".")
            if key in session.inputs:
                batches.setdefault(number, {})[key] = file[name]
    seconds, memory, own = [], [], psutil.Process()
    for _ in range(request.rounds):
        for arrays in batches.values():
            reset(session)
            begin = time.perf_counter()
            session(arrays)
            seconds.append(time.perf_counter() - begin)
            if request.memory:
                memory.append(int(own.memory_info().rss))
    return Timed(seconds, peak_memory(), memory)


def _task(spec: TaskSpec | None) -> Task | None:
    return None if spec is None else tasks.get(spec.use)(**spec.options)


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _forget_peak() -> None:
    """Start to measure peak memory (Linux; on other systems the peak is that of the whole process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return int(getattr(psutil.Process().memory_info(), "peak_wset", psutil.Process().memory_info().rss))


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while psutil.pid_exists(parent):
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
