"""A toy model whose second logit is shifted, as a step that loses accuracy does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cpu_pipeline.stages._base import Inputs, Job, Stage


class FaultyShift(Stage):
    """Copy a toy model and shift its second logit."""

    by: float = 0.0
    """What is added to the logit; a large number makes every answer the second label."""
    runs: Path | None = None
    """Not used: every stage of these tests may be told it."""

    takes: ClassVar = {"model": {"toy"}}
    unkeyed: ClassVar = frozenset({"runs"})
    remedies: ClassVar = ("by",)

    def gives(self) -> str:
        return "toy"

    def run(self, inputs: Inputs, out: Path, job: Job) -> Mapping[str, Any]:
        """Write the sum of both shifts."""
        for path in inputs["model"].path.iterdir():
            shutil.copyfile(path, out / path.name)
        before = float((out / "marker.txt").read_text(encoding="utf-8"))
        (out / "marker.txt").write_text(f"{before + self.by}\n", encoding="utf-8")
        return {}
