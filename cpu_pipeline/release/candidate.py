"""What `run`, `lock` and `refresh` share: prepare a build whose outputs may be published, and record its outcome."""

from __future__ import annotations

from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine import environments, preview
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import manifest
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.recorder import RunRecorder


def record(run: RunRecorder, built: BuildResult) -> BuildResult:
    """Write a build's outcome, and the manifest that a version of it would have, into its run; return the build."""
    described = None if built.errors else manifest.describe(built)
    run.note(**built.summary(), manifest=described)
    return built


def create_environments(planned: Plan, store: Store, tell: Tell) -> None:
    """Make the isolated environments that a build of this plan needs and that do not exist yet."""
    for name in preview.lacking(planned, store):
        environments.create(name, lambda line: tell(Event(line, "making")))
