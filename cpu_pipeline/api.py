"""The command line as Python: load a recipe, plan it, build it, with typed results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.engine import preview
from cpu_pipeline.engine.result import BuildResult, repaired
from cpu_pipeline.graph import changed, variants
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.graph.sets import apply_sets
from cpu_pipeline.recipe import reader
from cpu_pipeline.recipe.reader import RecipeFile
from cpu_pipeline.recipe.spec import Recipe
from cpu_pipeline.release import candidate, lockfile, publish, versions
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.settle import Release, for_service
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store, default_root
from cpu_pipeline.store.runs import recorder

if TYPE_CHECKING:
    from cpu_pipeline.engine.rebuild import Compared
    from cpu_pipeline.graph.check import CheckResult
    from cpu_pipeline.refresh import upstream
    from cpu_pipeline.release.bisect import Bisection
    from cpu_pipeline.release.sensitivity import SensitivityTable


@dataclass(frozen=True)
class Outcome:
    """A build whose every gate passed."""

    built: BuildResult
    """Artifacts, keys, records and verdicts of every step."""
    path: Path | None
    """The version's directory in `out`, or the one of a build that is never put into service (`withheld`)."""
    fresh: bool
    """True when the directory was written now, False when it existed."""
    instead_of: str | None
    """The version in service until now; None when there was none, or it is the same."""
    withheld: tuple[str, ...] = ()
    """Why it was not put into service; empty where it was."""


def load_recipe(
    path: Path | str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    allow_paths: Sequence[Path | str] = (),
) -> RecipeFile[Recipe]:
    """Read and check a recipe.

    Args:
        path: a file, or the bare name of a recipe that the package ships.
        options: step id, or `data.ROLE` -> option -> value, over the file's own.
        allow_paths: directories outside its own that the recipe may read, besides those of CPU_PIPELINE_ALLOW_PATH.

    Raises:
        RecipeError: every problem, one a line, as `file:line:column: path: what is wrong`.
    """
    return apply_sets(reader.load_recipe(Path(path), map(Path, allow_paths)), options)


def plan(
    loaded: RecipeFile[Recipe],
    until: str | None = None,
    *,
    limit: int | None = None,
    skip: Sequence[str] = (),
    measure: bool = True,
) -> Plan:
    """Connect the steps of a recipe and its pipeline in a checked graph.

    With any of the options a build of the plan is reported and never put into service: see `Plan.withheld`.

    Args:
        loaded: the recipe.
        until: leave out what this step does not need.
        limit: cut every data role to so many rows at most, and measurements to few calls.
        skip: gates to leave out.
        measure: False to leave out what measures time.

    Raises:
        RecipeError: steps, formats or options do not fit.
        Refused: a path leads outside.
    """
    made = changed.plan_with_sets(loaded)
    if skip:
        made = variants.skipping(made, skip)
    if not measure:
        made = variants.unmeasured(made)
    if limit is not None:
        made = variants.trial(made, limit)
    return made if until is None else variants.until(made, until)


def build(
    planned: Plan,
    store: Store | Path | str | None = None,
    out: Path | str = "artifacts",
    *,
    jobs: int = 1,
    force: bool = False,
    promote_anyway: str | None = None,
    remeasure: bool = False,
    create_envs: bool = False,
    locked: bool = False,
    tell: Tell = lambda _: None,
    record: recorder.RunRecorder | None = None,
) -> Outcome:
    """Build a plan, reuse what is cached, and publish its outputs when every gate passes.

    Args:
        planned: what to build.
        store: the store, or its directory; the user's own when None.
        out: the directory of `NAME/<version>/` and `NAME/latest`.
        jobs: how many steps may run at once.
        force: overwrite a version that was edited by hand.
        promote_anyway: why to put into service what options over the recipe's own changed; it is recorded.
        remeasure: measure again what depends on this machine.
        create_envs: create the environments that steps need and that do not exist.
        locked: refuse a plan that differs from the recipe's lock, and outputs that came out different.
        tell: called with every event.
        record: the run that this build is a part of; one of its own, of the command `run`, when None.

    Raises:
        StageFailed, TryAgain, BackendMissing: a step failed; independent branches were built all the same.
        GateFailed: everything was built, a check failed; nothing was published, `out/NAME/failed/<run>/` has a report.
        Stale: the plan or what came out differs from the recipe's lock.
        Refused: a version was edited by hand.
    """
    opened = _opened(store)
    planned = for_service(planned, Path(out), promote_anyway)
    with _recording(opened, "run", planned, tell, record) as (run, tells):
        run.note(out=str(Path(out).absolute()))
        require_locked = _lock_check(planned, locked)
        if create_envs:
            candidate.create_environments(planned, opened, tells)
        # The lease ends once the roots name the version: no `gc` comes between building and publishing.
        with leased(opened) as lease:
            builder = Builder(opened, lease, tells, jobs)
            release = Release(builder, Path(out), run, require_locked, force=force)
            built, done = repaired(
                lambda: candidate.record(run, builder.build(planned, remeasure=remeasure)), release.settle, tells
            )
    return Outcome(built, done.path, done.fresh, done.instead_of, done.withheld)


def prepare(
    planned: Plan,
    store: Store | Path | str | None = None,
    out: Path | str = "artifacts",
    *,
    jobs: int = 1,
    create_envs: bool = False,
    tell: Tell = lambda _: None,
) -> None:
    """Build what a plan has besides measurements, for a `build` that follows. Publishes nothing.

    Args:
        planned: what to build.
        store: the store, or its directory; the user's own when None.
        out: the directory of artifacts that the build will have.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        tell: called with every event.

    Raises:
        PipelineError: a step failed; this alone is recorded as a run. A gate that fails is left to the build.
    """
    opened = _opened(store)
    events: list[Event] = []

    def noting(event: Event) -> None:
        events.append(event)
        tell(event)

    if create_envs:
        candidate.create_environments(planned, opened, tell)
    with leased(opened) as lease:
        built = Builder(opened, lease, noting, jobs).build(variants.cheap(planned))
    if not built.errors:
        return
    with _recording(opened, "run", planned, tell) as (run, _):
        run.note(out=str(Path(out).absolute()))
        for event in events:
            run.tell(event)
        candidate.record(run, built)
        publish.require_built(built)


def rebuild(
    planned: Plan,
    store: Store | Path | str | None = None,
    *,
    jobs: int = 1,
    create_envs: bool = False,
    locked: bool = False,
    tell: Tell = lambda _: None,
) -> list[Compared]:
    """Build a plan from nothing and compare each step with the cached build, or with a build of now.

    Publishes nothing. Steps that differ are no error here: see `engine.rebuild.require_repeated`.

    Args:
        planned: what to build.
        store: the store, or its directory; the user's own when None.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        locked: refuse a plan or a cached build that differs from the recipe's lock.
        tell: called with every event.

    Raises:
        PipelineError: a step failed, in either build.
        Stale: the plan or the cached build differs from the recipe's lock.
    """
    from cpu_pipeline.engine import rebuild as rebuilding

    opened = _opened(store)
    require_locked = _lock_check(planned, locked)
    if create_envs:
        candidate.create_environments(planned, opened, tell)
    return rebuilding.rebuild(planned, opened, tell=tell, jobs=jobs, check=require_locked)


def bisect(
    planned: Plan,
    store: Store | Path | str | None = None,
    out: Path | str = "artifacts",
    *,
    metric: str | None = None,
    step: str | None = None,
    measure: bool = True,
    jobs: int = 1,
    create_envs: bool = False,
    tell: Tell = lambda _: None,
) -> tuple[Bisection, Path]:
    """Compare every model of a plan with the one before it, on the same rows; write the table to `out/NAME/bisect/`.

    The rows are those of `data.selection` where the recipe has them, else those of `data.validation`. What is cached
    is reused; nothing is put into service.

    Args:
        planned: the plan.
        store: the store, or its directory; the user's own when None.
        out: the directory of artifacts.
        metric: the metric; the task's usual one when None.
        step: compare the models that lead to this one alone.
        measure: False to leave out what measures time.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        tell: called with every event.

    Returns:
        What was found, and the directory with report.md and bisect.json.

    Raises:
        RecipeError: the recipe has no rows, the task no such metric, or no model is called `step`.
        PipelineError: a step failed.
    """
    from cpu_pipeline.release import bisect as bisecting

    part = bisecting.make_plan(planned, metric, step, measure=measure)
    with _built_apart(part, _opened(store), jobs, create_envs, tell) as built:
        found = bisecting.collect(built, metric)
    return found, bisecting.write(found, planned, Path(out))


def sensitivity(
    planned: Plan,
    step: str,
    store: Store | Path | str | None = None,
    out: Path | str = "artifacts",
    *,
    metric: str | None = None,
    jobs: int = 1,
    create_envs: bool = False,
    tell: Tell = lambda _: None,
) -> tuple[SensitivityTable, Path]:
    """Rank the operators of a quantized model by the damage that each does; write it to `out/NAME/sensitivity/STEP/`.

    Damage is measured on calibration rows. The five worst are confirmed one by one: each is put back to float alone,
    and the metric measured on the selection rows, or on the calibration rows where the recipe has no selection rows.
    What is cached is reused; nothing is put into service.

    Args:
        planned: the plan.
        step: the step that quantizes, of quantize.onnx or quantize.openvino.
        store: the store, or its directory; the user's own when None.
        out: the directory of artifacts.
        metric: the metric; the task's usual one when None.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        tell: called with every event.

    Returns:
        What was found, and the directory with report.md, sensitivity.json and sensitivity.svg.

    Raises:
        RecipeError: the recipe has no calibration rows, the task no such metric, or no step that quantizes is called
            `step`.
        PipelineError: a step failed.
    """
    from cpu_pipeline.release import sensitivity as measuring

    part = measuring.make_plan(planned, step, metric)
    with _built_apart(part, _opened(store), jobs, create_envs, tell) as built:
        found = measuring.collect(built, step)
    return found, measuring.write(found, planned, Path(out))


@contextlib.contextmanager
def _built_apart(part: Plan, store: Store, jobs: int, create_envs: bool, tell: Tell) -> Iterator[BuildResult]:
    """Build a plan of which nothing is put into service; `gc` leaves alone what it made until the block ends."""
    if create_envs:
        candidate.create_environments(part, store, tell)
    with leased(store) as lease:
        built = Builder(store, lease, tell, jobs).build(part)
        publish.require_built(built)
        yield built


def write_lock(
    planned: Plan,
    store: Store | Path | str | None = None,
    *,
    jobs: int = 1,
    create_envs: bool = False,
    tell: Tell = lambda _: None,
    upgrade: Upgrade | None = None,
) -> tuple[Path, bool]:
    """Build a plan and write the lock beside its recipe. Publishes nothing.

    Args:
        planned: what to build.
        store: the store, or its directory; the user's own when None.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        tell: called with every event.
        upgrade: new revisions, to be written into the recipe before the lock is written.

    Returns:
        The lock's path, and whether its text is new.

    Raises:
        PipelineError: as `build`, or the recipe names other revisions by now; then recipe and lock stay as they were.
    """
    opened = _opened(store)
    with _recording(opened, "lock", planned, tell) as (run, tells):
        if create_envs:
            candidate.create_environments(planned, opened, tells)

        def build_plan() -> BuildResult:
            built = candidate.record(run, builder.build(planned))
            run.note(puts_out=[])
            return built

        def describe(built: BuildResult) -> lockfile.Lock:
            publish.require_passed(built)
            return lockfile.make_lock(built, opened)

        with leased(opened) as lease:
            builder = Builder(opened, lease, tells, jobs)
            _, lock = repaired(build_plan, describe, tells)
            if upgrade is not None:
                upgrade.write()
            path = lockfile.lock_path(planned.path)
            new = lockfile.write_lock(lock, path)
            opened.root_at(path)
            run.note(lock=str(path), lock_changed=new)
    return path, new


@dataclass(frozen=True)
class Upgrade:
    """A recipe with the newest revisions of the branch that it follows; its file is unchanged until `write`."""

    recipe: RecipeFile[Recipe]
    """The recipe with the new revisions."""
    moves: tuple[upstream.Move, ...]
    """Each revision that changes."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Describe each revision that changes."""
        return tuple(move.says for move in self.moves)

    def write(self) -> None:
        """Write the revisions into the recipe's file, as that is by now.

        Raises:
            RecipeError: it names other revisions or repositories by now; it is left as it is.
        """
        from cpu_pipeline.refresh import upstream

        upstream.rewrite(self.recipe.path, self.moves)


def upgrade(loaded: RecipeFile[Recipe]) -> Upgrade | None:
    """Ask for the newest revisions of the branch that a recipe follows; None when it has them.

    Raises:
        RecipeError: the recipe follows no branch, or one that is not there.
        TryAgain: the Hub does not answer.
    """
    from cpu_pipeline.refresh import upstream

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
        Stale: it differs.
    """
    path = lockfile.lock_path(planned.path)
    lockfile.require([change.says for change in lockfile.drift(lockfile.read_lock(path), planned)], path)
    return path


def check(path: Path, *, allow_paths: Sequence[Path | str] = (), recipe_only: bool = False) -> CheckResult:
    """Check the file of a recipe or of a pipeline, and the models and rows of this machine that a recipe names.

    Args:
        path: the file.
        allow_paths: directories outside its own that a recipe may read.
        recipe_only: look at no model and no rows.

    Raises:
        PipelineError: every problem, one a line, of the class that a build would meet first.
        Refused: a path leads outside, neither allowed nor marked with `outside: true`.
    """
    from cpu_pipeline.graph import check as checking

    return checking.check(path, map(Path, allow_paths), recipe_only=recipe_only)


def precheck(plans: Sequence[Plan], store: Store | Path | str | None = None) -> list[str]:
    """Tell what a build of these plans would refuse, as far as that is known before the first step is built.

    Args:
        plans: the plans.
        store: the store, or its directory; what it has is not looked at again.

    Returns:
        Warnings of gates that cannot show much, each with the step; nothing of plans that are cached.

    Raises:
        PipelineError: every problem of every plan, one a line, of the class that the builds would meet first.
    """
    opened = _opened(store)
    cached = [{seen.node.id for seen in preview.look(each, opened) if seen.state == "cached"} for each in plans]
    pending = [(each, known) for each, known in zip(plans, cached, strict=True) if len(known) < len(each.nodes)]
    if not pending:
        return []
    from cpu_pipeline.graph import precheck as graph_precheck

    checked = [graph_precheck.precheck(each, known) for each, known in pending]
    graph_precheck.Checked(tuple(finding for one in checked for finding in one.findings), ()).require()
    return [f"{each.name}: {says}" for (each, _), one in zip(pending, checked, strict=True) for says in one.warnings]


def rollback(
    name: str,
    version: str | None = None,
    out: Path | str = "artifacts",
    *,
    store: Path | str | None = None,
    tell: Tell = lambda _: None,
) -> tuple[str | None, str]:
    """Put another version of an artifact into service.

    Args:
        name: the artifact's name.
        version: the version; the one that was in service before when None.
        out: the directory of artifacts.
        store: records the run.
        tell: called with a warning when it can't be recorded.

    Returns:
        The version that was in service, and the one that is now.

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
    store: Store, command: str, planned: Plan, tell: Tell, outer: recorder.RunRecorder | None = None
) -> Iterator[tuple[recorder.RunRecorder, Tell]]:
    """Record what happens inside as a run of its own, or as a part of the outer one."""

    def tells(event: Event) -> None:
        run.tell(event)
        tell(event)

    run = outer or recorder.recording(store, command, planned.name, planned.path, tell)
    with run if outer is None else contextlib.nullcontext():
        yield run, tells


def _lock_check(planned: Plan, locked: bool) -> Callable[[BuildResult], None]:
    """Compare a plan with its lock if it is `locked`; return a function that compares its build with the lock."""
    if not locked:
        return lambda _: None
    path = lockfile.lock_path(planned.path)
    lock = lockfile.read_lock(path)
    lockfile.require([change.says for change in lockfile.drift(lock, planned)], path)
    return lambda built: lockfile.require(lockfile.deviations(lock, built), path)
