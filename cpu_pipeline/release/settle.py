"""What becomes of a build: it is put into service, or aside because that was never meant, or a gate failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cpu_pipeline.core.errors import GateFailed, RecipeError
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.graph.variants import SET, withheld
from cpu_pipeline.release import latest, manifest, publish
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.tree import REPORT
from cpu_pipeline.store.runs.recorder import RunRecorder

USUAL = Path("artifacts")
"""The directory of artifacts unless another one is named."""


@dataclass(frozen=True)
class Settled:
    """What became of a build whose gates passed."""

    path: Path | None
    """Its directory; None where it has no outputs."""
    fresh: bool = False
    """Whether the directory was written now."""
    instead_of: str | None = None
    """The version in service until now, where it is another one."""
    withheld: tuple[str, ...] = ()
    """Why it was not put into service."""


def for_service(plan: Plan, out: Path, anyway: str | None = None) -> Plan:
    """Withhold a plan that --set changed, unless a reason is given, or it goes to a directory of its own.

    Args:
        plan: the plan; one that nothing changed stays as it is.
        out: the directory of artifacts. It is of its own when it is not the usual one, and nothing in service there is
            a recipe as written.
        anyway: why it is put into service all the same; it is recorded.

    Raises:
        RecipeError: the reason is empty.
    """
    if anyway is not None and not anyway.strip():
        raise RecipeError("--promote-anyway: give a reason; it is recorded")
    if not plan.sets or plan.withheld is not None:
        return plan
    if anyway is not None:
        return replace(plan, promoted_anyway=anyway)
    if _is_own(out, plan.name):
        return plan
    reason = f"--set changed {', '.join(plan.sets)}; give it an --out of its own, or --promote-anyway REASON"
    return withheld(plan, reason, SET)


def _is_own(out: Path, name: str) -> bool:
    if out == USUAL:
        return False
    now = latest.in_service(out / name)
    try:
        return now is None or bool(manifest.read_manifest(now).get("set"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


@dataclass(frozen=True)
class Release:
    """Settles the builds of one run."""

    builder: Builder
    out: Path
    run: RunRecorder
    require_locked: Callable[[BuildResult], None]
    """Compares a build with the recipe's lock; it may raise."""
    force: bool = False
    """Overwrite a version that was edited by hand."""

    def settle(self, built: BuildResult) -> Settled:
        """Publish a build, or put it aside, or report why its gates failed.

        Raises:
            PipelineError: the first error of the build, if it has any.
            GateFailed: a check failed; the message names the report.
            Damaged: an object is not what it was; nothing was changed.
        """
        self.require_locked(built)
        publish.require_built(built)
        if built.plan.withheld is not None:
            return self._put_aside(built, built.plan.withheld.reasons)
        self._require_passed(built)
        before = latest.in_service(self.out / built.plan.name)
        was = latest.label(before.name) if before is not None else None
        published = publish.publish(built, self.builder.store, self.out, force=self.force, by=self.run.command)
        if published is None:
            return Settled(None)
        path, fresh = published
        self.builder.store.root_at(path.parent)
        self.run.note(version=path.name)
        return Settled(path, fresh, None if was == path.name else was)

    def _put_aside(self, built: BuildResult, reasons: tuple[str, ...]) -> Settled:
        """Keep what was built, whatever its gates say: nobody is served by it."""
        from cpu_pipeline.release.aside import put_aside

        path, fresh = put_aside(built, self.builder.store, self.out)
        self.run.note(aside=str(path.absolute()))
        self._require_passed(built, f"; what was built is in {path}")
        return Settled(path, fresh, withheld=reasons)

    def _require_passed(self, built: BuildResult, where: str = "") -> None:
        if not (failed := publish.failures(built)):
            return
        from cpu_pipeline.release.failures.write import write_failure

        folder = write_failure(built, built.verdicts, self.builder, self.out, self.run.id)
        self.run.note(report=str(folder.absolute()))
        stays = f"{_stays(self.out / built.plan.name)}{where}; report: {folder / REPORT}"
        error = GateFailed("\n".join([*failed, stays]))
        error.report, error.built = str(folder / REPORT), built
        raise error


def _stays(home: Path) -> str:
    now = latest.in_service(home)
    return f"{latest.label(now.name)} stays in service" if now is not None else "nothing is put into service"
