"""The parent's end of a conversation with a worker: one child process, asked one thing at a time.

Requests and replies are JSON lines over the child's standard input and output (`worker.py` answers them); what
libraries print goes to the node's log. A child is reused while it is healthy and dies with its parent, so it must be
started from the parent's main thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import StageFailed, error_class
from cpu_pipeline.core.redaction import SECRET
from cpu_pipeline.environment import Interpreter

CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""A user and a password in an address, as proxies have them."""
SHAPING = ("TORCHINDUCTOR_", "AOT_INDUCTOR_", "AOTINDUCTOR_", "TORCHDYNAMO_")
"""What begins the names of settings that change how torch compiles: a recipe says that, not who happens to run it."""
SEEN_BY_FETCH = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
TAIL = 15
"""Lines of a dead child's log that its error shows."""


def variables(paths: Sequence[str], online: bool = False, timing: bool = False) -> dict[str, str]:
    """Return the environment variables of a child: no accelerators, no tokens, offline unless it fetches."""
    env = {
        k: v
        for k, v in os.environ.items()
        if (not SECRET.search(k) or (online and k in SEEN_BY_FETCH)) and not k.startswith(SHAPING)
    }
    env.pop("CPU_PIPELINE_STORE_REMOTE", None)  # its address may hold a secret, and no child asks it
    env |= {
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
        "ROCR_VISIBLE_DEVICES": "",
        "PYTHONHASHSEED": "0",
        # Libraries read their own files in the locale's encoding, and Inductor's are no ASCII.
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
    }
    env["PYTHONPATH"] = os.pathsep.join(paths)
    if timing:
        env.pop("OMP_WAIT_POLICY", None)
    else:
        # Threads that wait without spinning: on a machine that does other work too, the build is many times faster.
        env["OMP_WAIT_POLICY"] = "PASSIVE"
    if not online:
        env = {k: v for k, v in env.items() if not CREDENTIALS.search(v)}
        env |= {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_TOKEN_PATH": os.devnull,
        }
    return env


class Child:
    """The parent's end: one child process, asked one thing at a time."""

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
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, cpus)

    @property
    def replies(self) -> IO[bytes]:
        """Return the stream that becomes readable when the child has answered or died."""
        stream: IO[bytes] | None = self.process.stdout
        if stream is None:
            raise StageFailed("the worker has no output")
        return stream

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send one request."""
        self.peak = 0
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]  # always a pipe
            self.process.stdin.flush()  # type: ignore[union-attr]  # always a pipe
        except BrokenPipeError:
            pass  # it has died: reading its answer says so

    def answer(self) -> dict[str, Any]:
        """Wait for the answer; raise the error that the child names, or say how it died."""
        line = self.replies.readline()
        if not line.endswith(b"\n"):
            raise StageFailed(self.epitaph())
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise error_class(said["error"])(said["says"])
        return said

    def epitaph(self) -> str:
        """Say how the child died."""
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
        if code < 0:
            return f"died of {signal.Signals(-code).name} in native code"
        return f"its process ended with exit code {code} before it answered"

    def sample(self) -> None:
        """Note how much memory the child and its own children hold now."""
        with contextlib.suppress(psutil.Error):
            whole = [self._watched, *self._watched.children(recursive=True)]
            self.peak = max(self.peak, sum(p.memory_info().rss for p in whole))

    def stop(self, grace: float = 5.0) -> None:
        """Ask the whole process group to end, then make it."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill()  # the worker, and whatever it has started and left behind

    def kill(self) -> None:
        """End the whole process group at once."""
        self._signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)

    def close(self) -> None:
        """Let an idle child end by itself; make sure that it does."""
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


def told(artifact: Artifact) -> dict[str, Any]:
    return {**vars(artifact), "path": str(artifact.path), "facts": dict(artifact.facts)}


def request(
    use: str,
    options: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    out: Path,
    **rest: Any,
) -> dict[str, Any]:
    """Write what a child is asked to run; `rest` is task, data, scratch, threads, isa, allow, log and where."""
    inputs_told = {name: told(artifact) for name, artifact in inputs.items()}
    return {"do": "run", "use": use, "options": dict(options), "inputs": inputs_told, "out": str(out), **rest}
