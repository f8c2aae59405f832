"""Runs one node in a child process, in the interpreter its environment names: the child's end of the conversation.

It reads requests as JSON lines, answers each with one (`child.py` asks), sends what libraries print to the node's
log, and dies with its parent: by PR_SET_PDEATHSIG on Linux, by watching the parent elsewhere.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed, TryAgain
from cpu_pipeline.core.text import one_line
from cpu_pipeline.engine.environments import Interpreter
from cpu_pipeline.engine.worker.protocol import heard
from cpu_pipeline.engine.worker.session import RemoteSession, TimedSession
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.store.local import disk_error

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session


NOTHING = 1 << 20
"""Bytes left on a disk that count as none when a step fails there."""


def main() -> None:
    """Answer requests until the parent hangs up: the child's end."""
    replies = os.fdopen(os.dup(1), "wb")
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    _die_with_parent(int(sys.argv[1]))
    lines = os.fdopen(os.dup(0), "rb")
    os.dup2(devnull, 0)
    state: dict[str, Any] = {}
    while line := lines.readline():
        asked = json.loads(line)
        reply = json.dumps(_reply(asked, state), allow_nan=False)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the log's disk may be the one that is full
                stream.flush()
        replies.write(reply.encode() + b"\n")
        replies.flush()


def _reply(asked: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    try:
        if "log" in asked:
            _log_to(Path(asked["log"]))
        match asked["do"]:
            case "run":
                return _run(asked)
            case "open":
                state["session"] = backends.get(asked["artifact"]["format"]).load(
                    Path(asked["artifact"]["path"]), _task(asked), asked["threads"]
                )
                return {"inputs": list(state["session"].inputs)}
            case "answer":
                return _answer(asked, state["session"])
            case _:
                return _time(asked, state["session"])
    except PipelineError as error:
        return {"error": type(error).__name__, "says": str(error)}
    except ModuleNotFoundError as error:
        _trace()
        says = f"{error.name} is not installed; pip install 'cpu-pipeline[build]'"
        return {"error": BackendMissing.__name__, "says": says}
    except Exception as error:  # the one place: whatever a library raises becomes the error of this step
        _trace()
        if (full := _full(error, Path(asked.get("out", ".")))) is not None:
            return {"error": type(full).__name__, "says": str(full)}
        text = " ".join(str(error).split())[:600]
        return {"error": StageFailed.__name__, "says": f"{type(error).__name__}: {text}"}


def _trace() -> None:
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _full(error: BaseException, out: Path) -> TryAgain | None:
    """Say which disk is full if that is behind an error; native libraries raise what they like then."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            found = disk_error(cause, Path(str(cause.filename or out)))
            if isinstance(found, TryAgain):
                return found
        cause = cause.__cause__ or cause.__context__
    with contextlib.suppress(OSError):
        if shutil.disk_usage(out).free < NOTHING:
            found = disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), out)
            return found if isinstance(found, TryAgain) else None
    return None


def _run(asked: Mapping[str, Any]) -> dict[str, Any]:
    out = Path(asked["out"])
    task, threads = _task(asked), int(asked["threads"])
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    stage = stages.get(asked["use"])(**asked["options"])
    opened: list[RemoteSession] = []
    job = Job(
        load=lambda artifact: _load(artifact, task, threads, asked, opened),
        timer=lambda artifact: _timer(artifact, asked),
        source=sources.find,
        task=task,
        data={role: Path(path) for role, path in asked["data"].items()},
        scratch=Path(asked["scratch"]),
        threads=threads,
        isa=tuple(asked["isa"]),
        allow=frozenset(asked["allow"]),
    )
    _forget_peak()
    try:
        facts = stored_facts(stage.run({name: heard(said) for name, said in asked["inputs"].items()}, out, job))
    finally:
        for session in opened:
            session.close()
    try:
        json.dumps(facts, allow_nan=True)
    except TypeError as error:
        raise StageFailed(f"its facts are not JSON: {error}") from error
    found = _finite(facts)
    try:
        stage.parse_facts(found)
    except ValueError as error:  # no later build could read its record
        raise StageFailed(f"its facts are not what it declares: {one_line(error)}") from error
    return {"facts": found, "peak_memory": peak_memory()}


def _finite(value: Any) -> Any:
    """Write NaN and infinities as None: no number, which fails every comparison."""
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _load(
    artifact: Artifact, task: Any, threads: int, asked: Mapping[str, Any], opened: list[RemoteSession]
) -> Session:
    """Open an artifact where its backend lives: here, or in a child of this process in another environment."""
    backend = backends.get(artifact.format)
    if asked["environment"] == backend.ENVIRONMENT:
        return backend.load(artifact.path, task, threads)
    opened.append(RemoteSession(artifact, _interpreter(artifact, asked), asked))
    return opened[-1]


def _interpreter(artifact: Artifact, asked: Mapping[str, Any]) -> Interpreter:
    said = asked["interpreters"][backends.get(artifact.format).ENVIRONMENT]
    return Interpreter(said["python"], tuple(said["paths"]))


def _answer(asked: Mapping[str, Any], session: Session) -> dict[str, Any]:
    import numpy as np

    with np.load(asked["given"]) as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(asked["answers"], **session(arrays))  # type: ignore[arg-type]  # numpy types savez's keywords as bool
    return {}


def _time(asked: Mapping[str, Any], session: Any) -> dict[str, Any]:
    import numpy as np

    batches: dict[str, dict[str, Any]] = {}
    with np.load(asked["batches"]) as held:
        for name in held.files:
            number, _, key = name.partition(".")
            if key in session.inputs:
                batches.setdefault(number, {})[key] = held[name]
    seconds = []
    for _ in range(asked["rounds"]):
        for arrays in batches.values():
            begin = time.perf_counter()
            session(arrays)
            seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds, "peak_memory": peak_memory()}


@contextmanager
def _timer(artifact: Artifact, asked: Mapping[str, Any]) -> Iterator[TimedSession]:
    timed = TimedSession(artifact, _interpreter(artifact, asked), asked, host.pinned(int(asked["threads"])))
    try:
        yield timed
    finally:
        timed.close()


def _task(asked: Mapping[str, Any]) -> Any:
    told = asked.get("task")
    return None if told is None else tasks.get(told["use"])(**told["with"])


def _log_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _forget_peak() -> None:
    """Begin to measure peak memory anew (Linux; elsewhere the peak is the process's whole life)."""
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
