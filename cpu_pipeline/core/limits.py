"""Bound the memory and the processor time of a block, so that a hostile file ends its step and not the machine."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

import psutil

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.host import memory

MEMORY = 8 << 30
"""Bytes that reading and comparing a tokenizer may take, or half of the machine's memory if that is less."""
SECONDS = 600
"""Processor seconds that it may take."""
OVERTIME = getattr(signal, "SIGPROF", None)
"""What ends the process of a block that takes longer; native code answers to nothing else."""


@contextlib.contextmanager
def capped(what: str, most: int | None = None, seconds: float = SECONDS) -> Iterator[None]:
    """Bound what a block of a worker's process takes. Where the system has no such limits, it is not bounded.

    Native code that gets no memory may end the process, and so does a block that takes longer than `seconds`: only
    workers may use this.

    Args:
        what: what is read in the block, for the message.
        most: bytes of memory of its own beyond those that the process has now.
        seconds: processor time of all threads.

    Raises:
        StageFailed: the block took more memory than it may, and Python noticed.
    """
    most = min(MEMORY, memory() // 2) if most is None else most
    with contextlib.ExitStack() as stack:
        if sys.platform == "linux":
            stack.enter_context(_memory(most))
        if OVERTIME is not None:
            before = signal.signal(OVERTIME, signal.SIG_DFL)
            stack.callback(signal.signal, OVERTIME, before)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            stack.callback(signal.setitimer, signal.ITIMER_PROF, 0)
        try:
            yield
        except MemoryError as error:
            message = f"{what} takes more than {most >> 20:,} MiB of memory: it is damaged, or made to do so"
            raise StageFailed(message) from error


@contextlib.contextmanager
def _memory(most: int) -> Iterator[None]:
    import resource

    # Not the address space: of that, each thread's arena reserves what it never takes.
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = psutil.Process().memory_info().data + most
    bounds = [wanted, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
