"""The outcome of a refresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cpu_pipeline.core.errors import PipelineError
from cpu_pipeline.refresh.drift import DriftReport
from cpu_pipeline.release import latest


@dataclass
class Refreshed:
    """The outcome of the refresh of one recipe."""

    recipe: str
    """Name of the recipe."""
    outcome: str
    """fresh, promoted, unchanged (the same came out), held (it was rolled back), refused (by a gate), failed, or stale
    (of a dry run)."""
    exit_code: int = 0
    """Exit code of the recipe."""
    causes: Sequence[str] = ()
    """Changes that it reacted to, a sentence each."""
    ignored: Sequence[str] = ()
    """Changes that it did not react to (`--only`, `on`)."""
    moved: Sequence[Mapping[str, str]] = ()
    """Each revision that advanced: `what`, `repo`, `branch`, and the commits `from` and `to`."""
    version_before: str | None = None
    """The version in service before."""
    version: str | None = None
    """The version in service now."""
    built: int = 0
    """How many steps were built."""
    cached: int = 0
    """How many steps were cached."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Gate -> each figure, reference → candidate; `GATE@service` compares with what was in service."""
    failed: list[str] = field(default_factory=list)
    """What the gates that refused it report."""
    warnings: list[str] = field(default_factory=list)
    """What is odd, but stops nothing."""
    report: str | None = None
    """Path of the report on the gates that refused it; None where none was written."""
    removed: Sequence[str] = ()
    """Versions beyond `keep`."""
    error: str | None = None
    """Name of the error whose exit code it is."""
    says: str = ""
    """Message for people."""


def begin(seen: DriftReport) -> Refreshed:
    """Return the outcome of a refresh that has found out what changed, and has done nothing yet."""
    label = seen.standing.version
    moved = [
        {"what": ".".join(map(str, m.keys[:-1])), "repo": m.repo, "branch": m.branch, "from": m.old, "to": m.new}
        for m in seen.moves
    ]
    outcome = "held" if seen.rolled_back else "fresh"
    return Refreshed(seen.plan.name, outcome, 0, seen.causes, seen.ignored, moved, label, label)


def rests(done: Refreshed) -> str:
    """Return why nothing is to be done."""
    return f"{done.version} was put back by hand and stays" if done.outcome == "held" else "nothing has moved"


def failed(recipe: Path, out: Path, error: PipelineError, begun: Refreshed | None = None) -> Refreshed:
    """Return the outcome of a refresh that ended with an error; what is in service stays.

    Args:
        recipe: its file.
        out: the directory of artifacts.
        error: what ended it.
        begun: the outcome as far as it was known; None when nothing was.
    """
    now = latest.in_service(out / recipe.stem)
    version = latest.label(now.name) if now else None
    done = begun or Refreshed(recipe.stem, "failed", version_before=version)
    return replace(
        done, outcome="failed", exit_code=error.exit_code, version=version, error=type(error).__name__, says=str(error)
    )
