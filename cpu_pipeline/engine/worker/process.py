"""The build's end of a worker: one child process, one request at a time.

Requests and replies are JSON lines over the child's standard input and output (`main.py` answers them); what
libraries print goes to the node's log. A child is reused while it is healthy and dies with its parent, so it must be
started from the parent's main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from cpu_pipeline.core import host
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.limits import OVERTIME, SECONDS
from cpu_pipeline.engine.environments import Interpreter
from cpu_pipeline.engine.worker.protocol import Advanced, R, Request, read_news, read_reply, write_request
from cpu_pipeline.engine.worker.sandbox import variables

TAIL = 15
"""Lines of a dead child's log that its error shows."""


class WorkerProcess:
    """The build's end: one child process, one request at a time.

    Args:
        interpreter: runs the child.
        online: whether it may use the network and sees the Hub's token.
        cpus: the cores that it is pinned to; None for all.
        timing: whether it is to be timed: its threads spin while they wait, as a user's would.
    """

    def __init__(
        self, interpreter: Interpreter, online: bool = False, cpus: Sequence[int] | None = None, timing: bool = False
    ) -> None:
        self.interpreter, self.online = interpreter, online
        self.peak = 0
        """Most memory seen since the last request, in bytes."""
        # 0x200 is Windows' CREATE_NEW_PROCESS_GROUP, which other systems' subprocess does not name.
        group: dict[str, Any] = {"creationflags": 0x200} if os.name == "nt" else {"start_new_session": True}
        self.process = subprocess.Popen(
            [*interpreter.command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables(interpreter.paths, online, timing),
            **group,
        )
        self._watched = psutil.Process(self.process.pid)
        self._read = b""
        """What the child has written and nobody has taken yet: less than a line, but for a moment."""
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, cpus)

    @property
    def replies(self) -> IO[bytes]:
        """Return the stream that becomes readable when the child has replied or died."""
        stream: IO[bytes] | None = self.process.stdout
        if stream is None:
            raise StageFailed("the worker has no output")
        return stream

    def ask(self, request: Request) -> None:
        """Send one request."""
        self.peak = 0
        try:
            self.process.stdin.write(write_request(request))  # type: ignore[union-attr]  # always a pipe
            self.process.stdin.flush()  # type: ignore[union-attr]  # always a pipe
        except BrokenPipeError:
            pass  # it has died: `answer` reports that

    def answer(self, expected: type[R]) -> R:
        """Wait for the reply to the request.

        Args:
            expected: the class of the reply.

        Raises:
            PipelineError: the error that the child reports; how the child died, if it did.
        """
        while (line := self.take(expected)) is None or isinstance(line, Advanced):
            pass
        return line

    def take(self, expected: type[R]) -> R | Advanced | None:
        """Read once what the child writes: the reply to the request, news that came before it, or part of a line.

        Args:
            expected: the class of the reply.

        Raises:
            PipelineError: the error that the child reports; how the child died, if it did.
        """
        if b"\n" not in self._read:
            # Not through a buffer of Python's: what it holds, no selector sees.
            piece = os.read(self.replies.fileno(), 1 << 16)
            if not piece:
                raise StageFailed(self.epitaph())
            self._read += piece
        line, end, rest = self._read.partition(b"\n")
        if not end:
            return None
        self._read = rest
        return read_news(line) or read_reply(line, expected)

    @property
    def has_line(self) -> bool:
        """Say whether another line was read already."""
        return b"\n" in self._read

    def epitaph(self) -> str:
        """Describe how the child died."""
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the worker closed its output without an answer"
        if code == -signal.SIGKILL:
            return (
                f"killed (SIGKILL), as the system does when memory runs out; peak {_gib(self.peak)} of "
                f"{_gib(host.memory())}; try fewer calibration rows, a smaller batch or --jobs 1"
            )
        if OVERTIME is not None and code == -OVERTIME:
            return (
                f"took more than {SECONDS} seconds of processor time for what takes moments: a file that it reads is "
                "damaged, or made to do so"
            )
        if code < 0:
            return f"died of {signal.Signals(-code).name} in native code"
        return f"its process ended with exit code {code} before it answered"

    def sample(self) -> None:
        """Measure the memory of the child and its own children; keep the maximum."""
        with contextlib.suppress(psutil.Error):
            whole = [self._watched, *self._watched.children(recursive=True)]
            self.peak = max(self.peak, sum(p.memory_info().rss for p in whole))

    def stop(self, grace: float = 5.0) -> None:
        """Ask the whole process group to end (SIGTERM), then kill it.

        Args:
            grace: seconds that it has to end.
        """
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill()  # the worker, and whatever it has started and left behind

    def kill(self) -> None:
        """Kill the whole process group at once."""
        self._signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def close(self) -> None:
        """Let an idle child end by itself; kill it if it does not."""
        with contextlib.suppress(BrokenPipeError, OSError):
            self.process.stdin.close()  # type: ignore[union-attr]  # always a pipe
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()
        self.replies.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                self.process.terminate()
            else:
                os.killpg(self.process.pid, number)


def tail(log: Path) -> list[str]:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        return file.read().decode("utf-8", "replace").splitlines()[-TAIL:]
    return []


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
