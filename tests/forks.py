"""Run many commands cheaply: import everything once, fork for each, and kill one at its n-th write if asked.

Started as a process of its own (see `Forks`). What it runs is the real `main` of the command line and of the worker;
only the start of an interpreter is saved, for commands and for their workers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cpu_pipeline.engine import packages

WRITES = frozenset({"os.rename", "os.mkdir", "os.remove", "os.symlink", "os.link"})
"""Audit events of calls that change what is found; `open` for writing and os.fsync count too."""


def writes(every: int) -> Iterator[int]:
    """Count the writes to kill at: each `every`-th, for the quick suite; all of them where KILL_EVERY_WRITE is set."""
    return itertools.count(1, 1 if os.environ.get("KILL_EVERY_WRITE") else every)


class Forks:
    """The tests' end: a process that forks commands."""

    def __init__(self, env: dict[str, str], home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=home, text=True
        )

    def call(self, *arguments: object, kill_at: int = 0) -> dict[str, Any]:
        """Run a command; return its exit code (minus the signal's number), what it printed and its number of writes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": [*map(str, arguments)], "kill_at": kill_at}) + "\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=30)


class Forked:
    """What the engine needs of subprocess.Popen, for a worker that is forked instead of started."""

    def __init__(self, command: Sequence[str], env: dict[str, str], **_: Any) -> None:
        asked, answers = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become_worker(command, env, asked[0], answers[1])
        os.close(asked[0])
        os.close(answers[1])
        self.stdin: IO[bytes] = os.fdopen(asked[1], "wb")
        self.stdout: IO[bytes] = os.fdopen(answers[0], "rb")

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        limit = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > limit:
                raise subprocess.TimeoutExpired("worker", timeout)
            else:
                time.sleep(0.002)
        return self.returncode


def _become_worker(command: Sequence[str], env: dict[str, str], asked: int, answers: int) -> None:
    from cpu_pipeline.engine.worker import main

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for handle, place in ((asked, 0), (answers, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
        os.dup2(handle, place)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [command[0], command[-1]]
    with contextlib.suppress(SystemExit):
        main.main()
    os._exit(0)


class Killer:
    """Counts the writes of this process, and kills it before the n-th; what is being written then is cut in half."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.count, self.pid, self.fsync = kill_at, 0, os.getpid(), os.fsync
        sys.addaudithook(self.heard)
        os.fsync = self.synced

    def heard(self, event: str, given: tuple[Any, ...]) -> None:
        """Count one audit event."""
        if event in WRITES or (event == "open" and _writes(given)):
            self.counted()

    def synced(self, handle: int) -> None:
        """Count an fsync; when it is the one, half of the file has not reached the disk."""
        if self.count + 1 == self.kill_at and stat.S_ISREG(os.fstat(handle).st_mode):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
        self.counted()
        self.fsync(handle)

    def counted(self) -> None:
        """Count, and kill."""
        if os.getpid() == self.pid:
            self.count += 1
            if self.count == self.kill_at:
                os.kill(self.pid, signal.SIGKILL)


def _writes(given: tuple[Any, ...]) -> bool:
    path, _, flags = given
    # A lock is let go by the system, wherever its holder dies: between two locks nothing is written.
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR)) and not str(path).endswith(".lock")


def _run(arguments: list[str], kill_at: int, counted: int) -> int:
    from cpu_pipeline.cli import main
    from cpu_pipeline.engine.worker import process

    process.subprocess.Popen = Forked  # type: ignore[attr-defined]  # in this process alone
    killer = Killer(kill_at)
    code = main(arguments)
    os.write(counted, str(killer.count).encode())
    return code


def _fork(arguments: list[str], kill_at: int) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as counted:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = 70
            try:
                code = _run(arguments, kill_at, counted.fileno())
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err, counted):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1], "writes": int(texts[2] or 0)}


def serve() -> None:
    """Answer until the tests hang up."""
    import gc
    import sqlite3  # noqa: F401 - imported for those forked, as most of these are

    import jsonschema  # noqa: F401

    from cpu_pipeline import api  # noqa: F401
    from cpu_pipeline.core import host
    from cpu_pipeline.recipe import json_schema, reader
    from cpu_pipeline.store import contents  # noqa: F401

    reader.the_schema()
    for _, each in json_schema.documented_classes():
        packages.missing(getattr(each, "packages", ()))
    host.machine()
    gc.freeze()
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        replies.write(json.dumps(_fork(asked["arguments"], asked["kill_at"])) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
