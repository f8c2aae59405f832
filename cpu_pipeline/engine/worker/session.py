"""An artifact opened in a process of its own: fresh, to be timed; or in another environment, to answer from there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.engine.environments import Interpreter
from cpu_pipeline.engine.worker.process import WorkerProcess
from cpu_pipeline.engine.worker.protocol import told

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays


class RemoteSession:
    """A loaded artifact in a child of this process; arrays cross as files (a `backend.Session`)."""

    def __init__(
        self,
        artifact: Artifact,
        interpreter: Interpreter,
        request: Mapping[str, Any],
        cpus: Sequence[int] = (),
        timing: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cpu-pipeline-")
        self._child = WorkerProcess(interpreter, cpus=cpus, timing=timing)
        self._child.ask({**_common(request), "do": "open", "artifact": told(artifact)})
        opened = self._child.answer()
        self.inputs: tuple[str, ...] = tuple(opened["inputs"])
        self._stateful = bool(opened["stateful"])

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch there."""
        import numpy as np

        given, answers = (Path(self._folder.name) / name for name in ("given.npz", "answers.npz"))
        np.savez(given, **arrays)  # type: ignore[arg-type]  # numpy types savez's keywords as bool
        self._child.ask({"do": "answer", "given": str(given), "answers": str(answers)})
        self._child.answer()
        with np.load(answers) as held:
            return {name: held[name] for name in held.files}

    def reset(self) -> None:
        """Have the session there forget its earlier calls, where it has state."""
        if self._stateful:
            self._child.ask({"do": "reset"})
            self._child.answer()

    def close(self) -> None:
        """End the child."""
        self._child.close()
        self._folder.cleanup()


class TimedSession(RemoteSession):
    """An artifact in a fresh child on cores of its own, to be timed (a `stage.Timer`)."""

    def __init__(
        self, artifact: Artifact, interpreter: Interpreter, request: Mapping[str, Any], cpus: Sequence[int]
    ) -> None:
        begin = time.perf_counter()
        super().__init__(artifact, interpreter, request, cpus, timing=True)
        self.load_seconds = time.perf_counter() - begin
        self._peak = 0

    def time(self, batches: Sequence[Arrays], rounds: int = 1) -> list[float]:
        """Run every batch `rounds` times; the clock runs in the child."""
        import numpy as np

        path = Path(self._folder.name) / "batches.npz"
        np.savez(path, **{f"{i}.{name}": array for i, arrays in enumerate(batches) for name, array in arrays.items()})  # type: ignore[arg-type]  # numpy types savez's keywords as bool
        self._child.ask({"do": "time", "batches": str(path), "rounds": rounds})
        said = self._child.answer()
        self._peak = max(self._peak, int(said["peak_memory"]))
        return list(said["seconds"])

    @property
    def peak_memory(self) -> int:
        """Return the most memory the child has held so far, in bytes."""
        return self._peak


def _common(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: request[key] for key in ("task", "threads", "log") if key in request}
