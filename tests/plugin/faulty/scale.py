"""A checkpoint with one weight scaled, as a wrong quantization scale would: it runs, and answers worse."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from cpu_pipeline.stages._base import Inputs, Job, Stage


class FaultyScale(Stage):
    """Copy a checkpoint and multiply one weight by a factor."""

    weight: str
    """Name of the tensor."""
    factor: float
    """What it is multiplied by; 1 leaves every byte as it is."""

    takes: ClassVar = {"model": {"hf"}}

    def gives(self) -> str:
        return "hf"

    def run(self, inputs: Inputs, out: Path, job: Job) -> Mapping[str, Any]:
        from safetensors.numpy import load_file, save_file

        for path in inputs["model"].path.iterdir():
            shutil.copyfile(path, out / path.name)
        tensors = load_file(out / "model.safetensors")
        tensors[self.weight] = tensors[self.weight] * self.factor
        save_file(tensors, out / "model.safetensors", {"format": "pt"})
        return {}
