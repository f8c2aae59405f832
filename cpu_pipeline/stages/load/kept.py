"""What is in service, or was: an output of an earlier build, to be compared with what would take its place."""

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
    """Take up again what an earlier build put out, by its digest."""

    facts_model: ClassVar = KeptFacts
    internal: ClassVar = True
    unkeyed: ClassVar = frozenset({"folder", "files"})

    format: str
    """What it is: a model's format, or predictions."""
    digest: str
    """The digest it had as an artifact; it says all that counts."""
    folder: str
    """Where it lies."""
    files: tuple[str, ...]
    """Which files of the folder belong to it."""

    def gives(self) -> str:
        return self.format

    def run(self, inputs: Inputs, out: Path, job: Job) -> KeptFacts:
        """Copy it.

        Raises:
            Refused: it is not what it was.
        """
        for name in self.files:
            copy_file(Path(self.folder, name), out / name)
        if digest_tree(out) != self.digest:
            raise Refused(f"{self.folder} is not what was put out; see `cpu-pipeline verify`")
        return KeptFacts(files=len(self.files))
