"""The command line as Python: load a recipe, plan it, build it, with typed results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.engine import build as engine
from cpu_pipeline.engine import rebuild as rebuilding
from cpu_pipeline.engine.rebuild import Compared
from cpu_pipeline.engine.result import BuildResult, repaired
from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe import reader
from cpu_pipeline.recipe.reader import RecipeFile
from cpu_pipeline.recipe.spec import Recipe
from cpu_pipeline.refresh import upstream
from cpu_pipeline.release import candidate, latest, lockfile, publish, versions
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store, default_root
from cpu_pipeline.store.runs import recorder


@dataclass(frozen=True)
class Outcome:
    """A build whose every gate passed."""

    built: BuildResult
    """Artifacts, keys and verdicts of every step."""
    path: Path | None
    """The version's folder in `out`; None when nothing was to come out (`until`)."""
    fresh: bool
    """True when the folder was written now, False when it was there already."""
    instead_of: str | None
    """The version in service until now; None when there was none, or it is the same."""


def load_recipe(path: Path | str, options: Mapping[str, Mapping[str, Any]] | None = None) -> RecipeFile[Recipe]:
    """Read and check a recipe.

    Args:
        path: a file, or the bare name of a recipe that the package ships.
        options: step id -> option -> value, over what the file says.

    Raises:
        RecipeError: every problem, one a line, as `file:line:column: path: what is wrong`.
    """
    loaded = reader.load_recipe(Path(path))
    return RecipeFile(loaded.document, loaded.value, options)


def plan(loaded: RecipeFile[Recipe], until: str | None = None) -> Plan:
    """Wire a recipe and its pipeline into a checked graph; `until` keeps one step and what it is made of.

    Raises:
        RecipeError: steps, formats or options do not fit.
        Refused: a path leads outside.
    """
    return planner.make_plan(loaded, until)


def build(
    planned: Plan,
    store: Store | Path | str | None = None,
    out: Path | str = "artifacts",
    jobs: int = 1,
    force: bool = False,
    remeasure: bool = False,
    create_envs: bool = False,
    locked: bool = False,
    tell: Tell = lambda _: None,
    record: recorder.RunRecorder | None = None,
) -> Outcome:
    """Build a plan, reusing the store, and put its outputs into `out` when every gate passes.

    Args:
        planned: what to build.
        store: the store, or its folder; the user's own when None.
        out: where `NAME/<version>/` and `NAME/latest` go.
        jobs: how many steps may run at once.
        force: overwrite a version that was edited by hand.
        remeasure: measure anew what depends on this machine.
        create_envs: make the environments that steps need and that are not here.
        locked: refuse to build what differs from the recipe's lock, and to put out what came out different.
        tell: called with every event.
        record: the run that this build is a part of; one of its own, of the command `run`, when None.

    Raises:
        StageFailed, TryAgain, BackendMissing: a step failed; independent branches were built all the same.
        GateFailed: everything was built, a check says no, nothing was put out.
        Stale: the recipe's lock says something else.
        Refused: a version was edited by hand.
    """
    kept = _opened(store)
    with _recording(kept, "run", planned, tell, record) as (run, tells):
        run.note(out=str(Path(out).absolute()))
        hold = _hold(planned, locked)
        if create_envs:
            candidate.create_environments(planned, kept, tells)

        before: Path | None = None

        def put_out(built: BuildResult) -> tuple[Path, bool] | None:
            nonlocal before
            hold(built)
            before = latest.in_service(Path(out) / planned.name)
            return publish.publish(built, kept, Path(out), force=force, by=run.command)

        # Held until the roots name it: no `gc` comes between building and putting out.
        with leased(kept) as lease:
            built, published = repaired(
                lambda: candidate.record(
                    run, engine.build(planned, kept, tell=tells, jobs=jobs, remeasure=remeasure, lease=lease)
                ),
                put_out,
                tells,
            )
            if published is not None:
                kept.root_at(published[0].parent)
                run.note(version=published[0].name)
    path, fresh = published or (None, False)
    was = latest.label(before.name) if before is not None and path is not None else None
    return Outcome(built, path, fresh, None if path is not None and was == path.name else was)


def rebuild(
    planned: Plan,
    store: Store | Path | str | None = None,
    jobs: int = 1,
    create_envs: bool = False,
    locked: bool = False,
    tell: Tell = lambda _: None,
) -> list[Compared]:
    """Build a plan cold, put nothing out, and compare each step with what is kept, or made now; arguments as `build`.

    Raises:
        PipelineError: a step failed, in either build.
        Stale: the recipe's lock says something else. What came out different is no error here: see `require_repeated`.
    """
    kept = _opened(store)
    hold = _hold(planned, locked)
    if create_envs:
        candidate.create_environments(planned, kept, tell)
    return rebuilding.rebuild(planned, kept, tell=tell, jobs=jobs, check=hold)


def write_lock(
    planned: Plan,
    store: Store | Path | str | None = None,
    jobs: int = 1,
    create_envs: bool = False,
    tell: Tell = lambda _: None,
    moves: Upgrade | None = None,
) -> tuple[Path, bool]:
    """Build a plan, put nothing out, and write the lock beside the recipe; return it, and whether it says anything new.

    Args:
        planned: what to build.
        store: the store, or its folder; the user's own when None.
        jobs: how many steps may run at once.
        create_envs: make the environments that steps need and that are not here.
        tell: called with every event.
        moves: what is to be moved in the recipe, before the lock is written.

    Raises:
        PipelineError: as `build`, or the recipe can't be moved any more; then recipe and lock stay as they were.
    """
    kept = _opened(store)
    with _recording(kept, "lock", planned, tell) as (run, tells):
        if create_envs:
            candidate.create_environments(planned, kept, tells)

        def building() -> BuildResult:
            built = candidate.record(run, engine.build(planned, kept, tell=tells, jobs=jobs, lease=lease))
            run.note(puts_out=[])
            return built

        def describe(built: BuildResult) -> lockfile.Lock:
            publish.require_passed(built)
            return lockfile.make(built, kept)

        with leased(kept) as lease:
            _, made = repaired(building, describe, tells)
            if moves is not None:
                moves.write()
            place = lockfile.place(planned.path)
            new = lockfile.write(made, place)
            kept.root_at(place)
            run.note(lock=str(place), lock_changed=new)
    return place, new


@dataclass(frozen=True)
class Upgrade:
    """A recipe as it reads once its revisions stand where the branch that it follows does."""

    recipe: RecipeFile[Recipe]
    moves: tuple[upstream.Move, ...]

    @property
    def says(self) -> tuple[str, ...]:
        """Say what moved."""
        return tuple(move.says for move in self.moves)

    def write(self) -> None:
        """Move it in the recipe's file, as that reads by now.

        Raises:
            RecipeError: it names something else by now; it is left as it is.
        """
        upstream.rewrite(self.recipe.path, self.moves)


def upgrade(loaded: RecipeFile[Recipe]) -> Upgrade | None:
    """Ask where the branch that a recipe follows stands, and move the recipe there, on paper; None when nothing moves.

    Raises:
        RecipeError: the recipe follows no branch, or one that is not there.
        TryAgain: the Hub does not answer.
    """
    if loaded.value.refresh is None or loaded.value.refresh.follow is None:
        raise RecipeError(f"{loaded.path}: it follows no branch; say which: `refresh: {{follow: main}}`")
    found = upstream.moves(loaded, {"model", "data"})
    if not found:
        return None
    return Upgrade(upstream.moved(loaded, found)[0], tuple(found))


def check_lock(planned: Plan) -> Path:
    """Compare a plan with the lock beside its recipe, without building anything; return the lock's path.

    Raises:
        RecipeError: there is no lock, or it can't be read.
        Stale: it says something else.
    """
    place = lockfile.place(planned.path)
    lockfile.require([one.says for one in lockfile.drift(lockfile.read(place), planned)], place)
    return place


def rollback(
    name: str,
    version: str | None = None,
    out: Path | str = "artifacts",
    store: Path | str | None = None,
    tell: Tell = lambda _: None,
) -> tuple[str | None, str]:
    """Put another version of an artifact into service; return the version that was in service, and the one that is.

    Args:
        name: the artifact's.
        version: which; the one that was in service before when None.
        out: the folder of artifacts.
        store: where this is remembered.
        tell: called with a warning when it can't be.

    Raises:
        RecipeError: there is no such artifact, or no such version.
        Refused: the version is not whole any more.
    """
    homes = [path.name for path in Path(out).glob("*") if path.is_dir() and not path.is_symlink()]
    if name not in homes:
        known = f"; there are: {', '.join(sorted(homes))}" if homes else ""
        raise RecipeError(f"{out}: there is no artifact {name}{did_you_mean(name, homes)}{known}")
    with recorder.recording(_opened(store), "rollback", name, None, tell) as run:
        before, after = versions.rollback(Path(out) / name, version)
        run.note(version=after, version_before=before)
    return before, after


def _opened(store: Store | Path | str | None) -> Store:
    return store if isinstance(store, Store) else Store(default_root() if store is None else Path(store))


@contextlib.contextmanager
def _recording(
    kept: Store, command: str, planned: Plan, tell: Tell, given: recorder.RunRecorder | None = None
) -> Iterator[tuple[recorder.RunRecorder, Tell]]:
    """Record what happens inside as a run, or as a part of the one that is given."""

    def tells(event: Event) -> None:
        run.tell(event)
        tell(event)

    run = given or recorder.recording(kept, command, planned.name, planned.path, tell)
    with run if given is None else contextlib.nullcontext():
        yield run, tells


def _hold(planned: Plan, locked: bool) -> Callable[[BuildResult], None]:
    """Hold a plan against its lock if it is `locked`; return what does the same to what came of it."""
    if not locked:
        return lambda _: None
    place = lockfile.place(planned.path)
    held = lockfile.read(place)
    lockfile.require([one.says for one in lockfile.drift(held, planned)], place)
    return lambda built: lockfile.require(lockfile.deviations(held, built), place)
