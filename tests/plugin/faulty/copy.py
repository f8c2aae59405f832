"""A model, copied, with a marker; and whatever the options make go wrong."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from cpu_pipeline.core.artifact import Card
from cpu_pipeline.stages._base import Inputs, Job, Stage
from faulty._acts import Act, act


class FaultyCopy(Stage):
    """Copy a model and add a marker; do what `act` says on the way."""

    text: str = "same"
    """What the marker says."""
    needs: tuple[str, ...] = ()
    """Instruction sets that the artifact's card asks for."""
    form: Literal["hf", "onnx", "toy"] = "hf"
    """Format that it claims to give."""
    act: Act = "nothing"
    """What to do besides."""
    to: Path | None = None
    """A file for what `act` has to tell."""
    runs: Path | None = None
    """A file that gets a line for each run: the marker, when it began and when it ended."""
    seconds: float = 0.0
    """How long to sleep."""
    pieces: int = 0
    """How much progress to tell, a piece at a time."""

    takes: ClassVar = {"model": {"hf", "onnx"}}
    unkeyed: ClassVar = frozenset({"act", "to", "runs", "seconds", "pieces"})
    version: ClassVar = int(os.environ.get("FAULTY_VERSION", "1"))

    def gives(self) -> str:
        return self.form

    def run(self, inputs: Inputs, out: Path, job: Job) -> Mapping[str, Any]:
        """Copy, mark, go wrong."""
        began = time.time()
        if self.runs is not None:
            _add_line(self.runs, f"began {self.text}")
        shutil.copytree(inputs["model"].path, out, dirs_exist_ok=True)
        for path in out.rglob("*"):
            path.chmod(0o644 if path.is_file() else 0o755)
        (out / "marker.txt").write_text(f"{self.text}\n", encoding="utf-8")
        if self.needs:
            Card(self.form, self.needs).write(out)
        for number in range(self.pieces):
            job.progress(f"piece {number}", number + 1, self.pieces)
        act(self.act, self.to, out)
        time.sleep(self.seconds)
        if self.runs is not None:
            _add_line(self.runs, f"ended {self.text} {began} {time.time()}")
        facts: dict[str, Any] = {"threads": job.threads}
        return facts | ({"strange": object()} if self.act == "facts" else {})


def _add_line(path: Path, text: str) -> None:
    """Append one line in one write, so that lines of several processes do not mix."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
