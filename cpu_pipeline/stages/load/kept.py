"""An output of an earlier build, in service or before it, that a candidate is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from cpu_pipeline.core.artifact import digest_tree
from cpu_pipeline.core.errors import Refused
from cpu_pipeline.core.repo_files import copy_file
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage


class KeptFacts(Facts):
    """What was copied."""

    files: Count
    """Number of files."""


class LoadKept(Stage):
    """Load an output of an earlier build, by its digest."""

    facts_model: ClassVar = KeptFacts
    internal: ClassVar = True
    unkeyed: ClassVar = frozenset({"folder", "files"})

    format: str
    """Its format: a model's, or `predictions`."""
    digest: str
    """Its digest as an artifact; it alone decides what is loaded."""
    folder: str
    """Folder that holds it."""
    files: tuple[str, ...]
    """Files of the folder that belong to it."""

    def gives(self) -> str:
        return self.format

    def run(self, inputs: Inputs, out: Path, job: Job) -> KeptFacts:
        """Copy it.

        Raises:
            Refused: its digest has changed.
        """
        for name in self.files:
            copy_file(Path(self.folder, name), out / name)
        if digest_tree(out) != self.digest:
            raise Refused(f"{self.folder} is not what was published; see `cpu-pipeline verify`")
        return KeptFacts(files=len(self.files))
