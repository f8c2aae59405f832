"""Copy the files of a model, a tokenizer or data from where they are; the only node that is online."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.repo_files import Want
from cpu_pipeline.stages._base import Count, Facts, FindSource, Inputs, Job, Stage


class FetchFacts(Facts):
    """What was copied."""

    files: Count
    """Number of files."""
    bytes: Count
    """Their size in all."""


class Fetch(Stage):
    """Copy the files of a model, a tokenizer or data from where they are."""

    facts_model: ClassVar = FetchFacts
    internal: ClassVar = True
    online: ClassVar = True
    reads: ClassVar = frozenset({"allow"})
    unkeyed: ClassVar = frozenset({"fields"})

    source: str
    """Name of the source, such as `hub`."""
    fields: dict[str, Any]
    """Its fields; what they stand for is in the key, not how they are spelled."""
    want: Want
    """What to take from it."""

    def gives(self) -> str:
        return "files"

    def identity(self, source: FindSource) -> object:
        found = source(self.source, self.fields)
        return {"version": found.version, "what": found.identity(self.want)}

    def run(self, inputs: Inputs, out: Path, job: Job) -> FetchFacts:
        if job.source is None:
            raise StageFailed("a fetch was started without its sources")
        job.source(self.source, self.fields).fetch(self.want, out, job.allow)
        files = [p for p in out.rglob("*") if p.is_file()]
        return FetchFacts(files=len(files), bytes=sum(p.stat().st_size for p in files))
