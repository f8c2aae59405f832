"""What `run`, `lock` and `refresh` share: prepare a build whose outputs may be published, and record its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine import build, environments, preview
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import manifest
from cpu_pipeline.store.lease import Lease
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.recorder import RunRecorder


@dataclass(frozen=True)
class Builder:
    """Builds plans in one store, under one lease."""

    store: Store
    lease: Lease
    """`gc` leaves its results alone until it is over."""
    tell: Tell
    """Called with every event."""
    jobs: int = 1
    """How many steps may run at once."""

    def build(self, planned: Plan, *, remeasure: bool = False, tell: Tell | None = None) -> BuildResult:
        """Build every step of a plan.

        Args:
            planned: what to build.
            remeasure: measure again what depends on this machine.
            tell: called with the events instead of the builder's own.
        """
        return build.build(
            planned, self.store, tell=tell or self.tell, jobs=self.jobs, remeasure=remeasure, lease=self.lease
        )


@dataclass(frozen=True)
class Candidate:
    """A build whose every step succeeded, and that no gate has accepted yet."""

    built: BuildResult
    manifest: Mapping[str, Any]
    """The manifest of the version it would be, without its files."""


def build_candidate(planned: Plan, builder: Builder, run: RunRecorder, *, remeasure: bool = False) -> Candidate:
    """Build a plan and record its outcome.

    Args:
        planned: what to build.
        builder: builds it.
        run: the run that the outcome is recorded in.
        remeasure: measure again what depends on this machine.

    Raises:
        PipelineError: the first error of a step.
    """
    built = record(run, builder.build(planned, remeasure=remeasure))
    for error in built.errors.values():
        raise error
    return Candidate(built, manifest.describe(built))


def record(run: RunRecorder, built: BuildResult) -> BuildResult:
    """Write a build's outcome, and the manifest that a version of it would have, into its run; return the build."""
    described = None if built.errors else manifest.describe(built)
    run.note(**built.summary(), manifest=described)
    return built


def create_environments(planned: Plan, store: Store, tell: Tell) -> None:
    """Create the isolated environments that a build of this plan needs and that do not exist yet.

    Args:
        planned: what is to be built.
        store: shows which steps are cached; those need no environment.
        tell: called with every line of progress.
    """
    for name in preview.lacking(planned, store):
        environments.create(name, lambda line: tell(Event(line, "creating")))
