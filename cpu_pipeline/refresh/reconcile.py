"""Make what is in service fresh: see what moved since the lock, rebuild what depends on it, promote what proves itself.

Level-triggered: it looks at how things stand, never at what happened, so that it may be called whenever and however
often; a refresh that died anywhere is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.core.errors import GateFailed, Interrupted, PipelineError, Stale, TryAgain
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine import build, preview
from cpu_pipeline.engine.result import BuildResult, repaired
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe.spec import Trigger
from cpu_pipeline.refresh import baseline, upstream
from cpu_pipeline.refresh.baseline import MARK, Service
from cpu_pipeline.refresh.drift import DriftReport, find_drift
from cpu_pipeline.refresh.outcome import Refreshed, begin, failed, rests
from cpu_pipeline.release import candidate, latest, lockfile, manifest, promotions, publish, versions
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs import recorder

Tell = Tell
TRIES = 3
"""Looks again so often when another version is put into service meanwhile."""


class Overtaken(TryAgain):
    """Another version was put into service since it was looked at: what was rebuilt was compared with the wrong one."""


def refresh(
    path: Path,
    store: Store,
    out: Path,
    only: Collection[Trigger] = (),
    jobs: int = 1,
    create_envs: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda _: None,
) -> Refreshed:
    """Make one recipe's artifacts fresh: survey, rebuild, gate against the float model and what is in service, promote.

    Args:
        path: the recipe; its revisions and its lock are rewritten when, and only when, what came of it is promoted.
        store: where built steps are kept.
        out: where `NAME/<version>/` and `NAME/latest` are.
        only: react to these alone.
        jobs: how many steps may run at once.
        create_envs: make the environments that steps need and that are not here.
        dry_run: say what would be done, and do nothing.
        tell: called with every event.

    A gate's refusal is an outcome, and so is what keeps it from being done: what is in service stays then.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
        PipelineError: a dry run can't tell; the disk is too full to begin.
    """
    if dry_run:
        return _outlook(find_drift(path, out, only), store, out)
    with recorder.recording(store, "refresh", path.stem, path, tell) as run:
        run.note(out=str(out.absolute()))
        begun: Refreshed | None = None
        try:
            # Two refreshes of one recipe at once: the second waits, and then finds it fresh.
            # The lease holds what is built until the roots name it: no `gc` comes between.
            with store.lock(digest_json(["refresh", str(path.resolve())])), leased(store) as lease:
                for left in reversed(range(TRIES)):
                    work = Reconciler(find_drift(path, out, only), store, lease, out, jobs, create_envs, tell, run)
                    begun = work.done
                    try:
                        done = work.go()
                        break
                    except Overtaken:
                        if not left:
                            raise
        except Interrupted:
            raise
        except PipelineError as error:
            done = failed(path, out, error, begun)
        run.note(version=done.version, exit_code=done.exit_code, refresh=vars(done))
        if done.exit_code:
            run.note(error={"name": done.error, "says": done.says})
    if run.lost:
        done.warnings.append(f"this run is not recorded: {run.lost}")
    return done


def _outlook(seen: DriftReport, store: Store, out: Path) -> Refreshed:
    done = begin(seen, out)
    if not seen.causes:
        done.says = rests(done)
    else:
        states = [one.state for one in preview.look(seen.plan, store)]
        done.outcome, done.built, done.kept = "stale", len(states) - states.count("kept"), states.count("kept")
        done.says = f"{done.built} steps would be built, {done.kept} kept"
    return done


class Reconciler:
    """The work of `refresh`, once a recipe has been surveyed."""

    def __init__(
        self,
        seen: DriftReport,
        store: Store,
        lease: Lease,
        out: Path,
        jobs: int,
        create_envs: bool,
        tell: Tell,
        run: recorder.RunRecorder,
    ) -> None:
        self.seen, self.store, self.lease, self.out, self.jobs = seen, store, lease, out, jobs
        self.create_envs, self.told, self.run = create_envs, tell, run
        self.home = out / seen.plan.name
        self.done = begin(seen, out)
        self.made = set[str]()
        """Nodes that were built by this refresh."""

    def go(self) -> Refreshed:
        done, seen = self.done, self.seen
        if not seen.causes:
            done.says = rests(done)
            return self._tidied()
        self._rooted()  # also where a gate refuses, or a step fails
        if self.create_envs:
            candidate.create_environments(seen.plan, self.store, self.tell)
        kept = self._service()
        repaired(lambda: self._judged(kept), self._promote, self.tell)
        return self._refuse() if done.failed else done

    def _judged(self, kept: Service | None) -> BuildResult:
        """Build, and note what the gates that refuse it say."""
        built, verdicts = self._build(kept)
        if self._failed_by_an_old_measurement(built.plan, verdicts):
            # A measurement that a busy machine spoilt must not refuse for ever what is asked for again.
            before = {gate: found for gate, found in verdicts.items() if not all(v.passed for v in found)}
            built, after = self._build(kept, remeasure=True)
            verdicts = before | after  # what failed and can't be run again has failed
        self.done.failed = [f"{gate}: {v.says}" for gate, found in verdicts.items() for v in found if not v.passed]
        return built

    def _build(self, kept: Service | None, remeasure: bool = False) -> tuple[BuildResult, dict[str, list[Verdict]]]:
        """Build, and compare with what is in service; return every gate's verdicts.

        Raises:
            PipelineError: a step failed, or nothing could be compared.
        """
        done = self.done
        built = build.build(self.seen.plan, self.store, self.tell, self.jobs, remeasure, self.lease)
        self.made |= set(built.made)
        candidate.record(self.run, built, self.store)
        for error in built.errors.values():
            raise error
        done.built = sum(name in self.made for name in built.artifacts)
        done.kept = len(built.artifacts) - done.built
        compared = self._compare(kept, built, remeasure) if kept is not None else {}
        return built, {**built.verdicts, **compared}

    def _failed_by_an_old_measurement(self, plan: Plan, verdicts: Mapping[str, Sequence[Verdict]]) -> bool:
        """Say whether a gate that measures this machine fails by what an earlier run measured."""
        failed = [
            gate for gate, found in verdicts.items() if not all(v.passed for v in found) and gate not in self.made
        ]
        return any(plan.nodes[gate.removesuffix(MARK)].stage.host() == "machine" for gate in failed)

    def _service(self) -> Service | None:
        """Take up what is in service; a machine that has no artifacts knows it from lock and store."""
        version = latest.in_service(self.home)
        self._require_still()
        if version is not None:
            return baseline.of_version(version)
        if self.seen.held is None:
            return None
        found, lacking = baseline.of_lock(self.seen.held, self.seen.plan, self.lease)
        remote = self.store.remote
        if lacking and remote is not None and remote.down:
            raise TryAgain(
                f"what is in service ({', '.join(lacking)}) is not here, and the remote store does not answer"
            )
        for name in lacking:
            self._warn(f"`{name}` as the lock has it is neither here nor in the store: not compared with it")
        return found

    def _require_still(self) -> None:
        """Go on only while that is in service with which it is compared.

        Raises:
            Overtaken: it is something else by now.
        """
        if (now := latest.label(latest.latest(self.home))) != self.done.version_before and latest.in_service(self.home):
            raise Overtaken(f"{self.done.recipe}: {now} was put into service meanwhile; refresh again")

    def _compare(self, kept: Service, built: BuildResult, remeasure: bool) -> dict[str, list[Verdict]]:
        """Run the gates against what is in service; return their verdicts.

        Raises:
            PipelineError: of an output that comes out different, none of the gates could be run.
        """
        self.done.changes = {}
        plan = baseline.against(kept, built)
        gates = {
            name: node for name, node in plan.nodes.items() if name not in built.plan.nodes and node.stage.successor()
        }
        of = {
            name: {gate for gate, node in gates.items() if baseline.judged(plan, node) == name}
            for name in built.plan.outputs
        }
        for name in of:
            if name not in kept.models:
                self._warn(f"`{name}` is not in service yet: nothing to compare it with")
            elif kept.models[name].digest != built.artifacts[name].digest and not any(
                name in plan.ancestors(gate) for gate in gates
            ):
                self._warn(f"no gate of this recipe compares `{name}` with what is in service")
        if not gates:
            return {}
        # Without the gates that were just judged: what was measured for them is not to be measured again.
        plan = replace(plan, nodes={name: node for name, node in plan.nodes.items() if name not in built.verdicts})
        wider = build.build(plan, self.store, self._only_new(built.plan), self.jobs, remeasure, self.lease)
        self.made |= set(wider.made)
        for gate in gates:
            if gate in wider.artifacts:
                stage = gates[gate].stage
                self.done.changes[gate] = stage.changes(stage.parse_facts(wider.artifacts[gate].facts))
        alone = [name for name, own in of.items() if own and own.isdisjoint(wider.artifacts)]
        for node, error in wider.errors.items():
            if alone or isinstance(error, TryAgain):
                raise error
            self._warn(f"`{node}` could not be compared with what is in service: {str(error).splitlines()[0]}")
        return {gate: found for gate, found in wider.verdicts.items() if gate in gates}

    def _only_new(self, before: Plan) -> Tell:
        return lambda event: None if event.node in before.nodes else self.tell(event)

    def _refuse(self) -> Refreshed:
        done = self.done
        done.outcome, done.exit_code, done.error = "refused", GateFailed.exit_code, GateFailed.__name__
        stays = f"{done.version} stays in service" if done.version else "nothing is put into service"
        lines = [f"{done.recipe}: {stays}; what was rebuilt is refused: {done.failed[0]}"]
        lines += [f"  and {says}" for says in done.failed[1:]]
        lines += [f"  because {says}" for says in done.causes]
        lines += [f"  {gate}: {says}" for gate, found in done.changes.items() for says in found]
        done.says = "\n".join(lines)
        return done

    def _promote(self, built: BuildResult) -> None:
        """Put what no gate refuses into service, move the recipe, and write the lock.

        Raises:
            Damaged: an object is not what it was any more; nothing has been changed by then.
        """
        done, seen = self.done, self.seen
        if done.failed:
            return
        locked = lockfile.make(built, self.store)
        if seen.plan.outputs:
            described = manifest.describe(built, self.store)
            if (rejected := self._rejected(described)) is not None:
                done.outcome = "held"
                done.says = (
                    f"{rejected} was taken out of service by hand, and what came out is not promoted again; "
                    f"`cpu-pipeline rollback {done.recipe} {rejected}` would"
                )
                if done.version is None:  # a recipe with nothing in service is not well
                    done.exit_code, done.error = Stale.exit_code, Stale.__name__
                return
            if not self._is_in_service(described, built.plan):
                published = publish.publish(built, self.store, self.out, by="refresh", consent=self._consent)
                done.version = published[0].name if published else done.version
        # Each of these is found undone, and done, by the next refresh if this one dies here.
        self._move()
        lockfile.write(locked, lockfile.place(seen.recipe.path))
        done.outcome = "unchanged" if done.version == done.version_before else "promoted"
        done.says = (
            f"{done.version_before or 'nothing'} → {done.version}"
            if done.outcome == "promoted"
            else "the same came out"
        )
        self._tidied()

    def _consent(self) -> None:
        """Go on when what is in service is what was compared with, and the recipe can say what is promoted."""
        self._require_still()
        self._move()

    def _move(self) -> None:
        if self.seen.moves:
            upstream.rewrite(self.seen.recipe.path, self.seen.moves)

    def _rejected(self, described: Mapping[str, Any]) -> str | None:
        """Name the version that a rollback took out of service, if this is that: its bytes, whatever was measured."""
        puts = {name: said["digest"] for name, said in described["outputs"].items()}
        now = latest.in_service(self.home)
        if now is not None and manifest.output_digests(now) == puts:
            return None
        rejected = sorted(promotions.rejected(self.home))
        return next(
            (n for n in rejected if n == described["version"] or manifest.output_digests(self.home / n) == puts),
            None,
        )

    def _is_in_service(self, described: Mapping[str, Any], plan: Plan) -> bool:
        """Say whether nothing but what this machine measured tells it from the version in service."""
        now = latest.in_service(self.home)
        if now is None or manifest.edited(now):
            return False
        measured = {name for name, node in plan.nodes.items() if node.stage.host() == "machine"}

        def meant(said: Mapping[str, Any]) -> str:
            steps = {name: step | ({"digest": ""} if name in measured else {}) for name, step in said["steps"].items()}
            return manifest.version_of({**said, "steps": steps})

        return meant(manifest.read_manifest(now)) == meant(described)

    def _rooted(self) -> None:
        """Keep from `gc` what lock and versions name; a refresh that died may have left them without."""
        for root in (lockfile.place(self.seen.recipe.path), self.home):
            if root.exists():
                self.store.root_at(root)

    def _tidied(self) -> Refreshed:
        """Remove the versions beyond `keep`: after a promotion, and where one died before it came to this."""
        self._rooted()
        wanted = self.seen.recipe.value.refresh
        if wanted is not None and wanted.keep is not None and self.home.is_dir():
            self.done.removed = versions.keep(self.home, wanted.keep)
        return self.done

    def tell(self, event: Event) -> None:
        """Tell who watches, and who remembers."""
        self.told(event)
        self.run.tell(event)

    def _warn(self, says: str) -> None:
        if says in self.done.warnings:
            return
        self.done.warnings.append(says)
        self.tell(Event(self.done.recipe, "warning", (says,)))
