"""Make what is in service fresh: see what moved since the lock, rebuild what depends on it, promote what proves itself.

Level-triggered: it looks at how things stand, never at what happened, so that it may be called whenever and however
often; a refresh that died anywhere is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from cpu_pipeline import engine, environment, follow, history, lock, outlook, publish, service, versions, wiring
from cpu_pipeline.artifact import digest_json
from cpu_pipeline.engine import Built, Event
from cpu_pipeline.errors import GateFailed, PipelineError, TryAgain
from cpu_pipeline.graph import Plan
from cpu_pipeline.paper import Paper, load_recipe
from cpu_pipeline.recipe import Recipe, Trigger
from cpu_pipeline.service import Service
from cpu_pipeline.stage import Verdict
from cpu_pipeline.store import Store

TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)
Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Survey:
    """How a recipe stands: what has moved since its lock, and what a refresh would build."""

    recipe: Paper[Recipe]
    """As it would read after the followed branches' moves."""
    text: str | None
    """The recipe's new text; None when no revision moves."""
    plan: Plan
    held: lock.Lock | None
    moves: Sequence[follow.Move]
    causes: Sequence[str]
    """Why it is to be refreshed; nothing when it is fresh."""
    ignored: Sequence[str]
    """What has moved too, and is none of what this refresh reacts to."""
    rolled_back: bool
    """True when somebody has put an earlier version back into service by hand."""


@dataclass
class Refreshed:
    """What the refresh of one recipe came to."""

    recipe: str
    outcome: str
    """fresh, promoted, unchanged (the same came out), held (it was rolled back), refused (by a gate), failed, or stale
    (of a dry run)."""
    exit_code: int = 0
    causes: Sequence[str] = ()
    ignored: Sequence[str] = ()
    moved: Sequence[Mapping[str, str]] = ()
    version_before: str | None = None
    version: str | None = None
    """The version in service now."""
    built: int = 0
    kept: int = 0
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Gate -> each figure, reference → candidate; `GATE@service` compares with what was in service."""
    failed: list[str] = field(default_factory=list)
    """What the gates that refused it said."""
    warnings: list[str] = field(default_factory=list)
    removed: Sequence[str] = ()
    """Versions beyond `keep`."""
    error: str | None = None
    says: str = ""


def survey(path: Path, out: Path, only: Collection[Trigger] = ()) -> Survey:
    """Say how a recipe stands; writes nothing.

    Args:
        path: the recipe.
        out: the folder of artifacts.
        only: react to these alone, whatever the recipe's `refresh.on` says.

    Raises:
        RecipeError: the recipe or its lock is wrong, or a branch is not there.
        TryAgain: the Hub does not answer.
    """
    recipe = load_recipe(path)
    wanted = recipe.value.refresh
    kinds = set(only or (wanted.on if wanted else ()) or TRIGGERS)
    place = lock.place(recipe.path)
    held = lock.read(place) if place.exists() else None
    drift = lock.drift(held, wiring.plan(recipe)) if held is not None else []
    found = follow.moves(recipe, kinds)
    text = None
    if found:
        recipe, text = follow.moved(recipe, found)
    plan = wiring.plan(recipe)
    causes = [move.says for move in found] + [f"{one.kind}: {one.says}" for one in drift if one.kind in kinds]
    if held is None:
        causes.append("it was never locked")
    home = out / plan.name
    order = versions.promoted(home)
    out_of_step = _out_of_step(home, held, plan)
    back = out_of_step is not None and bool(order) and order[-1].by == "rollback"
    if out_of_step is not None and not back:
        causes.append(out_of_step)
    ignored = [f"{one.kind}: {one.says}" for one in drift if one.kind not in kinds]
    return Survey(recipe, text, plan, held, found, causes, ignored, back)


def _out_of_step(home: Path, held: lock.Lock | None, plan: Plan) -> str | None:
    """Say how what is in service differs from what the lock says of it."""
    if not plan.outputs:
        return None
    version = versions.in_service(home)
    if version is None:
        return f"nothing is in service in {home}"
    if changed := versions.edited(version):
        return f"{version} is in service and was edited ({', '.join(changed[:5])})"
    if held is None:
        return None
    outputs = {name: said["digest"] for name, said in versions.read_manifest(version)["outputs"].items()}
    locked = {name: held["steps"].get(name, {}).get("output") for name in plan.outputs}
    return None if outputs == locked else f"{version} is in service, and is not what the lock says"


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

    Raises:
        PipelineError: it could not be done; what is in service stays. A gate's refusal is an outcome, not an error.
    """
    if dry_run:
        return _outlook(survey(path, out, only), store, out)
    with history.recording(store, "refresh", path.stem, path) as run:
        # Two refreshes of one recipe at once: the second waits, and then finds it fresh.
        with store.lock(digest_json(["refresh", str(path.resolve())])):
            done = _Refresh(survey(path, out, only), store, out, jobs, create_envs, tell, run).go()
        run.note(version=done.version, exit_code=done.exit_code, refresh=vars(done))
        if done.exit_code:
            run.note(error={"name": GateFailed.__name__, "says": done.says})
    return done


def _outlook(seen: Survey, store: Store, out: Path) -> Refreshed:
    done = _begin(seen, out)
    if seen.causes:
        states = [one.state for one in outlook.look(seen.plan, store)]
        done.outcome, done.built, done.kept = "stale", len(states) - states.count("kept"), states.count("kept")
        done.says = f"{done.built} steps would be built, {done.kept} kept"
    return done


def _begin(seen: Survey, out: Path) -> Refreshed:
    version = versions.in_service(out / seen.plan.name)
    label = version.name if version else None
    moved = [
        {"what": ".".join(map(str, m.keys[:-1])), "repo": m.repo, "branch": m.branch, "from": m.old, "to": m.new}
        for m in seen.moves
    ]
    outcome = "held" if seen.rolled_back else "fresh"
    return Refreshed(seen.plan.name, outcome, 0, seen.causes, seen.ignored, moved, label, label)


class _Refresh:
    """The work of `refresh`, once a recipe has been surveyed."""

    def __init__(
        self, seen: Survey, store: Store, out: Path, jobs: int, create_envs: bool, tell: Tell, run: history.Run
    ) -> None:
        self.seen, self.store, self.out, self.jobs = seen, store, out, jobs
        self.create_envs, self.told, self.run = create_envs, tell, run
        self.home = out / seen.plan.name
        self.done = _begin(seen, out)

    def go(self) -> Refreshed:
        done, seen = self.done, self.seen
        if not seen.causes:
            done.says = f"{done.version} was put back by hand and stays" if seen.rolled_back else "nothing has moved"
            return self._tidied()
        if self.create_envs:
            for name in outlook.lacking(seen.plan, self.store):
                environment.create(name, lambda line: self.tell(Event(line, "making")))
        kept = self._service()
        built = engine.build(seen.plan, self.store, self.tell, self.jobs)
        self.run.came_to(built, None if built.errors else publish.describe(built, self.store))
        for error in built.errors.values():
            raise error
        done.built, done.kept = len(built.made), len(built.artifacts) - len(built.made)
        verdicts = dict(built.verdicts)
        if kept is not None:
            verdicts |= self._compare(kept, built)
        done.failed = [f"{gate}: {v.says}" for gate, found in verdicts.items() for v in found if not v.passed]
        if done.failed:
            return self._refuse()
        return self._promote(built)

    def _service(self) -> Service | None:
        """Take up what is in service; a machine that has no artifacts knows it from lock and store."""
        version = versions.in_service(self.home)
        if version is not None:
            return service.of_version(version)
        found = service.of_lock(self.seen.held, self.seen.plan, self.store) if self.seen.held is not None else None
        if self.seen.held is not None and found is None:
            self._warn("what is in service is neither here nor in the store: compared with the float model alone")
        return found

    def _compare(self, kept: Service, built: Built) -> dict[str, list[Verdict]]:
        """Run the gates against what is in service; return their verdicts.

        Raises:
            PipelineError: none of the gates of an output could be run.
        """
        plan = service.against(kept, built)
        gates = {
            name: node for name, node in plan.nodes.items() if name not in built.plan.nodes and node.stage.successor()
        }
        for name in built.plan.outputs:
            if name not in kept.models:
                self._warn(f"`{name}` is not in service yet: nothing to compare it with")
            elif kept.models[name].digest != built.artifacts[name].digest and not any(
                name in plan.ancestors(gate) for gate in gates
            ):
                self._warn(f"no gate of this recipe compares `{name}` with what is in service")
        if not gates:
            return {}
        wider = engine.build(plan, self.store, self._only_new(built.plan), self.jobs)
        for gate in gates:
            if gate in wider.artifacts:
                self.done.changes[gate] = gates[gate].stage.changes(wider.artifacts[gate].facts)
        for node, error in wider.errors.items():
            if isinstance(error, TryAgain) or not self.done.changes:
                raise error
            self._warn(f"`{node}` could not be compared with what is in service: {str(error).splitlines()[0]}")
        return {gate: found for gate, found in wider.verdicts.items() if gate in gates}

    def _only_new(self, before: Plan) -> Tell:
        return lambda event: None if event.node in before.nodes else self.tell(event)

    def _refuse(self) -> Refreshed:
        done = self.done
        done.outcome, done.exit_code = "refused", GateFailed.exit_code
        stays = f"{done.version} stays in service" if done.version else "nothing is put into service"
        lines = [f"{done.recipe}: {stays}; what was rebuilt is refused:"]
        lines += [f"  {says}" for says in done.failed]
        lines += [f"  because {says}" for says in done.causes]
        lines += [f"  {gate}: {says}" for gate, found in done.changes.items() for says in found]
        done.says = "\n".join(lines)
        return done

    def _promote(self, built: Built) -> Refreshed:
        done, seen = self.done, self.seen
        if seen.plan.outputs:
            manifest = publish.describe(built, self.store)
            if manifest["version"] in versions.rejected(self.home):
                done.outcome = "held"
                done.says = (
                    f"{manifest['version']} was taken out of service by hand and is not promoted again; "
                    f"`cpu-pipeline rollback {done.recipe} {manifest['version']}` would"
                )
                return done
            published = publish.publish(built, self.store, self.out, by="refresh")
            done.version = published[0].name if published else done.version
        # Each of these is found undone, and done, by the next refresh if this one dies here.
        if seen.text is not None:
            follow.write(seen.recipe.path, seen.text)
        place = lock.place(seen.recipe.path)
        lock.write(lock.make(built), place)
        self.store.root_at(place)
        self.store.root_at(self.home)
        done.outcome = "unchanged" if done.version == done.version_before else "promoted"
        done.says = (
            f"{done.version_before or 'nothing'} → {done.version}"
            if done.outcome == "promoted"
            else "the same came out"
        )
        return self._tidied()

    def _tidied(self) -> Refreshed:
        """Remove the versions beyond `keep`: after a promotion, and where one died before it came to this."""
        wanted = self.seen.recipe.value.refresh
        if wanted is not None and wanted.keep is not None and self.home.is_dir():
            self.done.removed = versions.keep(self.home, wanted.keep)
        return self.done

    def tell(self, event: Event) -> None:
        """Tell who watches, and who remembers."""
        self.told(event)
        self.run.tell(event)

    def _warn(self, says: str) -> None:
        self.done.warnings.append(says)
        self.tell(Event(self.done.recipe, "warning", (says,)))


def failed(recipe: Path, error: PipelineError) -> Refreshed:
    """Say that a refresh could not be done."""
    return Refreshed(recipe.stem, "failed", error.exit_code, error=type(error).__name__, says=str(error))
