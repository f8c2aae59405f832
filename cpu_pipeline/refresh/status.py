"""Report how fresh what is in service is. A dead man's switch: it reports also when no refresh ran at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.graph import planner
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.release import caveats, latest, lockfile, promotions, standing
from cpu_pipeline.release.promotions import Promotion
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.reader import began
from cpu_pipeline.store.runs.recorder import RunEntry, runs

FOLDER = Path("recipes")
FRESHENING = ("run", "refresh")
"""Commands after which an artifact is as fresh as its recipe."""
SKEW = 300
"""Seconds by which another machine's clock may be ahead of this one's; what is later has not happened yet."""
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass
class RecipeStatus:
    """The state of one recipe."""

    recipe: str
    """Path of the recipe's file."""
    name: str
    """Its name."""
    version: str | None
    """What is in service."""
    rolled_back: bool
    """True when it was put back into service by a rollback."""
    fresh: str | None
    """When it was last known to be fresh: UTC, ISO 8601."""
    age: float | None
    """Seconds since then."""
    last: str | None
    """How the last run or refresh ended: done, failed, interrupted, died, or unreadable."""
    run: str | None
    """Its id."""
    running: bool
    """True when one is at work just now."""
    lock: Literal["fresh", "stale", "missing", "unknown"]
    """State of its lock."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Output in service whose answers no gate judged against the float model -> why it is in service all the same."""
    waived: dict[str, str] = field(default_factory=dict)
    """Gate that what is in service failed, and that was waived -> until when, and why."""
    set: list[str] = field(default_factory=list)
    """What `--set` changed of the recipe for what is in service."""
    promoted_anyway: str | None = None
    """Why it was put into service though `--set` changed the recipe; null where it was not."""
    problems: list[str] = field(default_factory=list)
    """What is wrong; empty when nothing is."""
    warnings: list[str] = field(default_factory=list)
    """What is odd, but no fault of what is in service."""


def duration(text: str) -> float:
    """Read a duration such as 90m, 36h, 8d or 2w as seconds.

    Raises:
        RecipeError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([mhdw])", text.strip())
    if found is None or not float(found[1]):
        raise RecipeError(f"{text!r} is no duration; write a number and m, h, d or w, such as 36h, 8d or 2w")
    return float(found[1]) * _UNITS[found[2]]


def recipes(out: Path, folder: Path = FOLDER) -> list[Path]:
    """List the recipes that are meant to be in service: those that say `refresh`, have a lock, or artifacts.

    Raises:
        RecipeError: there is none.
    """
    found = [path for path in sorted(folder.glob("*.yaml")) if (out / path.stem).is_dir() or _is_meant(path)]
    if not found:
        raise RecipeError(
            f"no recipe is named, and none in {folder}/ has `refresh`, a lock, or artifacts in {out}; name one"
        )
    return found


def _is_meant(path: Path) -> bool:
    if lockfile.lock_path(path).exists():
        return True
    try:
        return load_recipe(path).value.refresh is not None
    except PipelineError:
        return True  # `status` says what is wrong with it


def status(
    paths: Sequence[Path], store: Store, out: Path, most: float, now: datetime | None = None
) -> list[RecipeStatus]:
    """Report the state of recipes. Builds and writes nothing.

    Args:
        paths: the recipes.
        store: has the history of runs and refreshes.
        out: the folder of artifacts.
        most: seconds after which what is in service is too old.
        now: the time to compare with; this machine's when None.

    Raises:
        RecipeError: there is no such recipe.
    """
    known = runs(store)
    return [_state(path, known, out, most, now or datetime.now(UTC)) for path in paths]


def _state(path: Path, known: Sequence[RunEntry], out: Path, most: float, now: datetime) -> RecipeStatus:
    locked, broken = _lock(path)
    home = out / path.stem
    mine = [run for run in known if _is_of(run, path, out)]
    past = (run for run in mine if run.outcome != "running" and _past(began(run.id), now))
    # What was fine as far as it looked says nothing of what it was not to look at.
    last = next((run for run in past if not (run.partial and run.outcome == "done")), None)
    service = latest.in_service(home)
    order = promotions.promoted(home)
    # The history stays on the machine that made it; the promotions go with the artifacts.
    texts = [run.finished for run in mine if run.outcome == "done" and not run.partial]
    texts += [run.when for run in order if run.by in FRESHENING]
    times = [when for text in texts if (when := _past(text, now)) is not None]
    fresh = max(times) if times and service is not None else None
    age = None if fresh is None else (now - fresh).total_seconds()
    found = RecipeStatus(
        str(path),
        path.stem,
        latest.label(service.name) if service else None,
        bool(order) and order[-1].by == "rollback",
        None if fresh is None else fresh.isoformat(timespec="seconds"),
        None if age is None else round(max(age, 0.0)),
        last.outcome if last else None,
        last.id if last else None,
        any(run.outcome == "running" for run in mine),
        locked,
        problems=[broken] if broken else [],
        warnings=list(_ahead(mine, order, now)),
    )
    _look_at(found, path, home)
    if service is None:
        found.problems.append(f"nothing is in service in {home}")
    elif age is None:
        found.problems.append("nobody knows when it was last fresh")
    elif age > most:
        found.problems.append(f"it was last fresh {ago(age)} ago, {ago(most)} at most")
    if last is not None and last.outcome != "done":
        code = "" if last.exit_code is None else f" ({last.exit_code})"
        message = f"the last {last.command} {last.outcome}{code}: {last.says or last.id}"
        found.problems.append(message + last.report_end())
    return found


def _look_at(found: RecipeStatus, path: Path, home: Path) -> None:
    """Read the version in service whole, and compare it with the lock; add what is wrong or odd."""
    now = standing.read_standing(home)
    if now.folder is None:
        return
    if now.edited:
        found.problems.append(f"{now.folder} is not what was written ({', '.join(now.edited[:5])})")
        return
    described = now.manifest or {}
    found.unchecked, found.waived = caveats.unchecked(described), caveats.waived(described)
    found.set, found.promoted_anyway = caveats.changed(described), described.get("promoted_anyway")
    found.warnings += caveats.caveats(described)
    try:
        lock = lockfile.read_lock(lockfile.lock_path(path))
    except PipelineError:
        return  # `lock` says so
    if found.rolled_back or not (difference := now.differs(lock, None)):
        return
    # Where the recipe moved on since its lock, what is in service may be newer than the lock.
    (found.problems if found.lock == "fresh" else found.warnings).append(difference)


def _is_of(run: RunEntry, path: Path, out: Path) -> bool:
    """Say whether a run made this recipe's artifacts: other projects may use the same store, and the same names."""
    if run.name != path.stem or run.command not in FRESHENING or not run.puts_out:
        return False
    # A project that was moved, or is mounted elsewhere now, is no other one: nothing is where it was.
    return all(
        recorded in (None, str(mine.absolute())) or not Path(recorded or "").exists()
        for recorded, mine in ((run.place, path), (run.out, out))
    )


def _lock(path: Path) -> tuple[Literal["fresh", "stale", "missing", "unknown"], str]:
    """Compare a recipe with its lock; return the lock's state, and the error that keeps it unknown."""
    try:
        loaded = load_recipe(path)
        path_of_lock = lockfile.lock_path(loaded.path)
        if not path_of_lock.exists():
            return "missing", ""
        return ("stale" if lockfile.drift(lockfile.read_lock(path_of_lock), planner.make_plan(loaded)) else "fresh"), ""
    except PipelineError as error:
        if not path.exists() and path.suffix:
            raise
        return "unknown", str(error).partition("\n")[0]


def _time(text: str | None) -> datetime | None:
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _past(text: str | None, now: datetime) -> datetime | None:
    """Read a time; None for one that has not come yet: a clock was wrong when it was written."""
    when = _time(text)
    return when if when is not None and (when - now).total_seconds() <= SKEW else None


def _ahead(mine: Sequence[RunEntry], order: Sequence[Promotion], now: datetime) -> Iterator[str]:
    """Say what was written by a clock that was ahead: it counts for nothing until its time has come."""
    times = [(f"the {run.command} {run.id}", text) for run in mine for text in (began(run.id), run.finished)]
    times += [(f"the promotion of {move.version}", move.when) for move in order]
    late = {what: when for what, text in times if (when := _time(text)) and _past(text, now) is None}
    if late:
        what, when = max(late.items(), key=lambda pair: pair[1])
        more = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
        far = ago((when - now).total_seconds())
        yield f"{what}{more} is {far} ahead of this machine's clock, and does not count; is the clock right?"


def ago(seconds: float) -> str:
    """Write a duration for people."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
