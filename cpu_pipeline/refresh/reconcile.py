"""Keep one recipe's release fresh: find what changed since the lock, rebuild it, compare it, and promote or refuse it.

The loop is level-triggered: it looks at the current state, never at events. It may be called at any time and as often
as wanted; the next refresh finishes what a killed one left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.core.errors import GateFailed, Interrupted, PipelineError, RecipeError, Stale, TryAgain
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine import preview
from cpu_pipeline.engine.result import repaired
from cpu_pipeline.recipe.spec import Trigger
from cpu_pipeline.refresh import baseline, compare, upstream
from cpu_pipeline.refresh.baseline import Baseline
from cpu_pipeline.refresh.decide import Decision, Verdicts, decide, fails_by_cached_measurement, measured
from cpu_pipeline.refresh.drift import DriftReport, find_drift
from cpu_pipeline.refresh.outcome import Refreshed, begin, failed, rests
from cpu_pipeline.release import candidate, lockfile, publish, standing, versions
from cpu_pipeline.release.candidate import Builder, Candidate
from cpu_pipeline.release.failures.write import write_failure
from cpu_pipeline.release.standing import Overtaken
from cpu_pipeline.release.tree import REPORT
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import recorder
from cpu_pipeline.store.runs.recorder import RunRecorder

TRIES = 3
"""How often a refresh begins again because another version was put into service meanwhile."""


def refresh(
    path: Path,
    store: Store,
    out: Path,
    *,
    only: Collection[Trigger] = (),
    allow_paths: Collection[Path] = (),
    jobs: int = 1,
    create_envs: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda _: None,
) -> Refreshed:
    """Refresh one recipe. A gate's refusal is an outcome, and so is an error: what is in service stays then.

    Args:
        path: the recipe; its revisions and its lock are rewritten only when a candidate is promoted.
        store: where built steps are cached.
        out: the directory of `NAME/<version>/` and `NAME/latest`.
        only: react to these triggers alone.
        allow_paths: directories outside its own that the recipe may read.
        jobs: how many steps may run at once.
        create_envs: create the environments that steps need and that do not exist.
        dry_run: report what would be done, and do nothing.
        tell: called with every event.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
        PipelineError: a dry run can't find out what changed; the disk is too full to begin.
    """
    if dry_run:
        return _preview(find_drift(path, out, only, allow_paths), store)
    with recorder.recording(store, "refresh", path.stem, path, tell) as run:
        run.note(out=str(out.absolute()))
        begun: Refreshed | None = None
        try:
            # Of two refreshes of one recipe at once, the second waits, and then finds it fresh.
            # The lease holds what is built until the roots name it: no `gc` comes between.
            with store.lock(digest_json(["refresh", str(path.resolve())])), leased(store) as lease:
                builder = Builder(store, lease, _both(tell, run.tell), jobs)
                for left in reversed(range(TRIES)):
                    reconciler = Reconciler(find_drift(path, out, only, allow_paths), builder, out, run)
                    begun = reconciler.result
                    try:
                        result = reconciler.reconcile(create_envs=create_envs)
                        break
                    except Overtaken:
                        if not left:
                            raise
        except Interrupted:
            raise
        except PipelineError as error:
            result = failed(path, out, error, begun)
        run.note(version=result.version, exit_code=result.exit_code, refresh=vars(result))
        if result.exit_code:
            run.note(error={"name": result.error, "says": result.says})
    if run.lost:
        result.warnings.append(f"this run is not recorded: {run.lost}")
    return result


def _both(*listeners: Tell) -> Tell:
    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def _preview(drift: DriftReport, store: Store) -> Refreshed:
    result = begin(drift)
    if not drift.causes:
        result.says = rests(result)
    else:
        states = [step.state for step in preview.look(drift.plan, store)]
        result.outcome, result.cached = "stale", states.count("cached")
        result.built = len(states) - result.cached
        result.says = f"{result.built} steps would be built, {result.cached} cached"
    return result


@dataclass(frozen=True)
class _Judged:
    """A candidate and the verdicts of every gate."""

    candidate: Candidate
    verdicts: Verdicts


class Reconciler:
    """Brings one recipe's release up to date: candidate, compare, decide, then promote, hold or refuse.

    Args:
        drift: what changed, and what is in service.
        builder: builds the candidate and runs the gates.
        out: the directory of artifacts.
        run: the run that is recorded.
    """

    def __init__(self, drift: DriftReport, builder: Builder, out: Path, run: RunRecorder) -> None:
        self.drift, self.builder, self.out, self.run = drift, builder, out, run
        self.standing = drift.standing
        self.result = begin(drift)
        """Filled step by step; what is in it counts even if an error ends the refresh."""
        self.ran = set[str]()
        """Steps that ran in this refresh; the others were cached."""

    def reconcile(self, *, create_envs: bool) -> Refreshed:
        """Do what the drift report asks for; return the outcome.

        Raises:
            PipelineError: a step failed, or an output could not be compared.
            Overtaken: another version was put into service meanwhile; begin again with a new report.
        """
        if not self.drift.causes:
            self.result.says = rests(self.result)
            self._tidy()
            return self.result
        if self.drift.plan.withheld is not None:
            raise RecipeError(f"{self.drift.recipe.path}: {'; '.join(self.drift.plan.withheld.reasons)}")
        self._register_roots()  # also for a candidate that fails or is refused
        if create_envs:
            candidate.create_environments(self.drift.plan, self.builder.store, self.builder.tell)
        released = self._baseline()
        repaired(lambda: self._judge(released), self._settle, self.builder.tell)
        return self.result

    def _baseline(self) -> Baseline | None:
        """Load what is in service; a machine without artifacts loads it from lock and store."""
        self.standing.require_unmoved()
        if self.standing.folder is not None:
            return baseline.of_version(self.standing)
        if self.drift.lock is None:
            return None
        found, missing = baseline.of_lock(self.drift.lock, self.drift.plan, self.builder.lease)
        remote = self.builder.store.remote
        if missing and remote is not None and remote.down:
            names = ", ".join(missing)
            raise TryAgain(f"what is in service ({names}) is not here, and the remote store does not answer")
        self._warn(
            [f"`{name}` as the lock has it is neither here nor in the store: not compared with it" for name in missing]
        )
        return found

    def _judge(self, released: Baseline | None) -> _Judged:
        """Build the candidate and run every gate; measure again where a cached measurement alone refuses it."""
        first = self._attempt(released)
        if not fails_by_cached_measurement(first.candidate.built.plan, first.verdicts, self.ran):
            return first
        # A busy machine may have spoilt a measurement; it must not refuse every later refresh.
        failures = {gate: found for gate, found in first.verdicts.items() if not all(v.passed for v in found)}
        second = self._attempt(released, remeasure=True)
        # A gate that failed, and that can't run now, has failed.
        return replace(second, verdicts={**failures, **second.verdicts})

    def _attempt(self, released: Baseline | None, *, remeasure: bool = False) -> _Judged:
        found = candidate.build_candidate(self.drift.plan, self.builder, self.run, remeasure=remeasure)
        self.ran |= set(found.built.made)
        self.result.built = sum(name in self.ran for name in found.built.artifacts)
        self.result.cached = len(found.built.artifacts) - self.result.built
        if released is None:
            return _Judged(found, found.built.verdicts)
        comparison = compare.prepare(released, found.built, self.standing.earlier())
        self._warn(comparison.warnings)
        compared = compare.run(comparison, found.built, self.builder, remeasure=remeasure)
        self.ran |= compared.ran
        self.result.changes = dict(compared.changes)
        if compared.error is not None:
            raise compared.error
        self._warn(compared.warnings)
        return _Judged(found, {**found.built.verdicts, **compared.verdicts})

    def _settle(self, judged: _Judged) -> None:
        """Decide, and carry the decision out.

        Raises:
            Damaged: an object is not what it was any more; nothing has been changed by then.
        """
        found = judged.candidate
        decision = decide(judged.verdicts, self.standing, found.manifest, measured(found.built.plan))
        if decision.action == "refuse":
            self._refuse(decision)
            self._report(judged)
            return
        lock = lockfile.make_lock(found.built, self.builder.store)
        self.standing.require_unmoved()  # the decision compares with what was in service when this refresh began
        if decision.action == "hold":
            self._hold(decision)
            return
        if decision.action == "promote":
            self._publish(found)
        self._update(lock)

    def _refuse(self, decision: Decision) -> None:
        result = self.result
        result.outcome, result.exit_code, result.error = "refused", GateFailed.exit_code, GateFailed.__name__
        result.failed = list(decision.reasons)
        stays = f"{result.version} stays in service" if result.version else "nothing is put into service"
        lines = [f"{result.recipe}: {stays}; what was rebuilt is refused: {result.failed[0]}"]
        lines += [f"  and {failure}" for failure in result.failed[1:]]
        lines += [f"  because {cause}" for cause in result.causes]
        lines += [f"  {gate}: {figure}" for gate, figures in result.changes.items() for figure in figures]
        result.says = "\n".join(lines)

    def _report(self, judged: _Judged) -> None:
        """Write why, beside the versions."""
        built = judged.candidate.built
        folder = write_failure(built, judged.verdicts, self.builder, self.out, self.run.id)
        self.run.note(report=str(folder.absolute()))
        self.result.report = str(folder / REPORT)
        self.result.says += f"\n  report: {self.result.report}"

    def _hold(self, decision: Decision) -> None:
        result, [rejected] = self.result, decision.reasons
        result.outcome = "held"
        result.says = (
            f"{rejected} was taken out of service by hand, and what came out is not promoted again; "
            f"`cpu-pipeline rollback {result.recipe} {rejected}` would"
        )
        if result.version is None:  # a recipe with nothing in service is not well
            result.exit_code, result.error = Stale.exit_code, Stale.__name__

    def _publish(self, found: Candidate) -> None:
        # The recipe moves inside `publish`: under its lock, once everything is written, before `latest` moves.
        published = publish.publish(
            found.built,
            self.builder.store,
            self.out,
            by="refresh",
            standing=self.standing,
            consent=self._advance_recipe,
        )
        self.result.version = published[0].name if published else self.result.version

    def _update(self, lock: lockfile.Lock) -> None:
        """Write recipe and lock, and tidy up: the next refresh does what this one leaves undone if it dies here."""
        result = self.result
        self._advance_recipe()
        lockfile.write_lock(lock, lockfile.lock_path(self.drift.recipe.path))
        if result.version == result.version_before:
            result.outcome, result.says = "unchanged", "the same came out"
        else:
            result.outcome, result.says = "promoted", f"{result.version_before or 'nothing'} → {result.version}"
        self._tidy()

    def _advance_recipe(self) -> None:
        if self.drift.moves:
            upstream.rewrite(self.drift.recipe.path, self.drift.moves)

    def _register_roots(self) -> None:
        """Keep from `gc` what lock and versions name; a refresh that died may not have done it."""
        for root in (lockfile.lock_path(self.drift.recipe.path), self.standing.home):
            if root.exists():
                self.builder.store.root_at(root)

    def _tidy(self) -> None:
        """Register the roots and remove the versions beyond `keep`, also where an earlier refresh died before that."""
        self._register_roots()
        wanted = self.drift.recipe.value.refresh
        if wanted is not None and wanted.keep is not None and self.standing.home.is_dir():
            now = standing.read_standing(self.standing.home)  # this refresh may have promoted
            spare = baseline.best_versions([now, *now.earlier()], self.drift.plan)
            self.result.removed = versions.keep(self.standing.home, wanted.keep, spare)

    def _warn(self, warnings: Sequence[str]) -> None:
        """Report each warning once."""
        for warning in warnings:
            if warning not in self.result.warnings:
                self.result.warnings.append(warning)
                self.builder.tell(Event(self.result.recipe, "warning", (warning,)))
