"""An artifact opened in a process of its own: to be timed, or because its backend lives in another environment."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.engine.environments import Interpreter
from cpu_pipeline.engine.worker.process import WorkerProcess
from cpu_pipeline.engine.worker.protocol import Answer, Answered, Open, Opened, Reset, ResetDone, Time, Timed

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays


class RemoteSession:
    """A loaded artifact in a child of this process; arrays cross as files (a `backend.Session`)."""

    def __init__(
        self,
        opening: Open,
        interpreter: Interpreter,
        *,
        cpus: Sequence[int] = (),
        timing: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cpu-pipeline-")
        self._child = WorkerProcess(interpreter, cpus=cpus, timing=timing)
        self._child.ask(opening)
        opened = self._child.answer(Opened)
        self.inputs: tuple[str, ...] = opened.inputs
        self._stateful = opened.stateful

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch: input name -> array of shape (batch, ...), to output name -> array."""
        import numpy as np

        inputs, outputs = (Path(self._folder.name) / name for name in ("inputs.npz", "outputs.npz"))
        np.savez(inputs, **arrays)  # type: ignore[arg-type]  # numpy types savez's keywords as bool
        self._child.ask(Answer(inputs, outputs))
        self._child.answer(Answered)
        with np.load(outputs) as file:
            return {name: file[name] for name in file.files}

    def reset(self) -> None:
        """Have the session there forget its earlier calls, where it has state."""
        if self._stateful:
            self._child.ask(Reset())
            self._child.answer(ResetDone)

    def close(self) -> None:
        """End the child and remove the files that arrays crossed in."""
        self._child.close()
        self._folder.cleanup()


class TimedSession(RemoteSession):
    """An artifact in a fresh child on cores of its own, to be timed (a `stage.Timer`)."""

    def __init__(self, opening: Open, interpreter: Interpreter, cpus: Sequence[int]) -> None:
        begin = time.perf_counter()
        super().__init__(opening, interpreter, cpus=cpus, timing=True)
        self.load_seconds = time.perf_counter() - begin
        self._peak = 0

    def time(self, batches: Sequence[Arrays], rounds: int = 1) -> list[float]:
        """Run every batch `rounds` times; return the seconds of each call, in order, measured in the child."""
        return self._timed(batches, rounds, memory=False).seconds

    def trace(self, batches: Sequence[Arrays]) -> tuple[list[float], list[int]]:
        """Run every batch once; return the seconds of each call, and the bytes that the child held after it."""
        timed = self._timed(batches, 1, memory=True)
        return timed.seconds, timed.memory

    def _timed(self, batches: Sequence[Arrays], rounds: int, *, memory: bool) -> Timed:
        import numpy as np

        path = Path(self._folder.name) / "batches.npz"
        np.savez(path, **{f"{i}.{name}": array for i, arrays in enumerate(batches) for name, array in arrays.items()})  # type: ignore[arg-type]  # numpy types savez's keywords as bool
        self._child.ask(Time(path, rounds, memory))
        timed = self._child.answer(Timed)
        self._peak = max(self._peak, timed.peak_memory)
        return timed

    @property
    def peak_memory(self) -> int:
        """Return the most memory the child has held so far, in bytes."""
        return self._peak
