"""The contract every backend module keeps."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cpu_pipeline.core.model_io import Session, StatefulSession

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head

__all__ = ["MEDIA", "TESTED", "Backend", "Session", "StatefulSession"]

TESTED = frozenset({"bert", "roberta", "distilbert"})
"""`model_type`s that our tests bring into every format; MiniLM is a small BERT."""

MEDIA = frozenset({"vit", "wav2vec2"})
"""`model_type`s of images and sound that our tests bring into hf, onnx, openvino and torchscript."""


class Backend(Protocol):
    """A module in backends/, named after its format. As PEP 544 has it, `self` is the module."""

    PACKAGES: tuple[str, ...]
    """Distributions whose versions shape what it answers."""
    VERSION: int
    """Raised whenever it starts answering differently."""
    ENVIRONMENT: str
    """The environment with its packages: default, or one that `cpu-pipeline env create` makes."""
    PRECISIONS: tuple[str, ...]
    """What its artifacts can compute in: float32, bfloat16, int8."""
    ARCHITECTURES: Set[str]
    """`model_type`s whose checkpoints our tests bring into this format and compare."""
    ONLY: bool
    """Whether other architectures are refused; otherwise they are tried, and their answers compared."""
    STATUS: str
    """Its state upstream, in one line."""

    def load(self, path: Path, head: Head | None, threads: int) -> Session:
        """Open the artifact at `path` on the CPU; 0 threads lets the runtime choose.

        Raises:
            StageFailed: the files are not a valid model of this format.
            BackendMissing: a package or an instruction set it needs is missing.
        """

    def usage(self, folder: str, head: Head | None) -> str:
        """Write the lines of Python that load an output from `folder` and run it, for the report."""
