"""The build loop: what is known, what can start, what failed. It runs in one thread; an executor runs the steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from cpu_pipeline import sources
from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed, interruption
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.core.text import one_line
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.estimate import Estimate
from cpu_pipeline.engine.keys import Keyed, reasons
from cpu_pipeline.engine.packages import missing
from cpu_pipeline.engine.plugins import changed
from cpu_pipeline.engine.progress import Progress
from cpu_pipeline.engine.requirements import environments_of, packages_of
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import StoredArtifact

if TYPE_CHECKING:
    from cpu_pipeline.engine.executors._base import Executor, Handle, StepAdvance, StepOutcome
    from cpu_pipeline.engine.machine_lock import MachineLock

TICK = 0.1
"""Seconds between looks at other builds' locks."""
GRACE = 5.0
"""Seconds that an interrupted step has to end by itself."""


def build(
    plan: Plan,
    store: Store,
    *,
    tell: Tell = lambda _: None,
    jobs: int = 1,
    remeasure: bool = False,
    lease: Lease | None = None,
    executor: Executor | None = None,
) -> BuildResult:
    """Build every node of a plan; branches that don't need a failed node go on.

    Args:
        plan: what to build.
        store: the cache: what it has is reused, what is built is added.
        tell: called with every event.
        jobs: how many nodes may run at once.
        remeasure: measure again what depends on this machine (latency), though a measurement is cached.
        lease: protects what was built from `gc` for as long as it lasts. None for a lease that ends with the build.
        executor: runs the steps, and is closed at the end. None for child processes of this one.

    Returns:
        The result, with the error of each node that failed; such a node raises nothing.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the steps that ran are ended, what was finished is in the store.
    """
    with leased(store) if lease is None else contextlib.nullcontext(lease) as held:
        running = _Build(
            plan=plan,
            store=store,
            lease=held,
            given=executor,
            progress=Progress(plan, tell, Estimate(plan, store)),
            jobs=max(1, jobs),
            remeasure=remeasure,
        )
        try:
            return running.go()
        except KeyboardInterrupt as by:
            running.end(GRACE)
            raise interruption(by, "interrupted; the same command goes on from what is finished") from None
        finally:
            running.end(grace=0.0)


@dataclass
class _Started:
    """A node that an executor runs."""

    node: Node
    keyed: Keyed
    work: Path
    """The directory that it writes."""
    locks: contextlib.ExitStack
    """Releases the lock of its key and its share of the machine."""


@dataclass
class _Build:
    """The work of `build`; its arguments are the fields."""

    plan: Plan
    store: Store
    lease: Lease
    given: Executor | None
    progress: Progress
    jobs: int
    remeasure: bool
    running: dict[Handle, _Started] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    """Keys that the store lacked; looked up once more when their lock is held."""

    # Made when a step is to run: a build that is cached needs neither of them, nor what they import.

    @cached_property
    def executor(self) -> Executor:
        from cpu_pipeline.engine.executors.local import LocalExecutor

        return self.given or LocalExecutor()

    @cached_property
    def machine(self) -> MachineLock:
        from cpu_pipeline.engine.machine_folder import machine_folder
        from cpu_pipeline.engine.machine_lock import MachineLock

        return MachineLock(machine_folder(self.store.root / "machine"))

    def go(self) -> BuildResult:
        _warn(self.plan, self.progress.tell)
        while self.progress.pending or self.running:
            advanced = self._advance()
            if self.running:
                for news in self.executor.poll(TICK):
                    self._take(news)
                self.progress.tick([started.node for started in self.running.values()])
            elif not advanced and self.progress.pending:
                time.sleep(TICK)
        return self.progress.result

    def end(self, grace: float) -> None:
        """Stop every step and release every lock."""
        try:
            if self.given is not None or "executor" in vars(self):
                self.executor.close(grace)
        finally:
            for started in self.running.values():
                started.locks.close()
            self.running.clear()
            if "machine" in vars(self):
                self.machine.close()

    def _advance(self) -> bool:
        """Settle what is cached, start what can start; say whether anything changed."""
        advanced = False
        for node in list(self.progress.pending.values()):
            if node.id not in self.progress.pending:  # skipped by this very loop, because of a full disk
                continue
            if (failed := self.progress.failed_need(node)) is not None:
                self.progress.skip(node, failed)
                advanced = True
            elif self.progress.ready(node):
                advanced |= self._settle_or_start(node)
        if "machine" in vars(self):
            self.machine.release_unused_door()
        return advanced

    def _settle_or_start(self, node: Node) -> bool:
        try:
            keyed = self.progress.keyed(node)
            again = self.remeasure and node.stage.host() == "machine"
            if not again and keyed.key not in self.absent:
                if (found := self._find(node, keyed.key)) is not None:
                    brought = keyed.key in self.lease.brought
                    self._reuse(node, found, "the remote store had it" if brought else None)
                    return True
                self.absent.add(keyed.key)
            return self._has_turn(node) and self._start(node, keyed, again)
        except PipelineError as error:
            self.progress.fail(node, error)
            return True

    def _find(self, node: Node, key: str) -> StoredArtifact | None:
        """Find what was built for a node; what its stage cannot have written is set aside, and so a miss."""
        found = self.lease.find(key)
        if found is None or node.fits(found):
            return found
        force = " (`store push --force` mends the remote store)" if key in self.lease.brought else ""
        message = f"the record {key[:12]} is not what its stage writes; set aside, building it on this machine{force}"
        self.progress.tell(Event(node.id, "warning", (message,)))
        self.lease.refuse(key, found)
        return None

    def _reuse(self, node: Node, found: StoredArtifact, why: str | None = None) -> None:
        self._settle(node, found)
        self.progress.news(node, "cached", () if why is None else (why,))

    def _settle(self, node: Node, artifact: StoredArtifact) -> None:
        self.progress.settle(node, artifact)
        self.store.remember(self.plan.label(node.id), self.progress.result.keys[node.id])

    def _has_turn(self, node: Node) -> bool:
        """Say whether a node may run beside those that run: a measurement runs alone."""
        alone = node.stage.alone or any(started.node.stage.alone for started in self.running.values())
        return len(self.running) < self.jobs and not (self.running and alone)

    def _start(self, node: Node, keyed: Keyed, again: bool) -> bool:
        """Start a node, unless another build holds what it needs; say whether anything changed."""
        _require(self.plan, node)
        lock = self.store.lock(keyed.key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.progress.wait(node, "another build is making it")
            return False
        alone = node.stage.alone
        with contextlib.ExitStack() as locks:
            locks.callback(lock.release)
            if not again and (found := self._find(node, keyed.key)) is not None:
                self._reuse(node, found, "another build has just made it")
            elif damaged := self._damaged(node):
                self.progress.build_again(damaged)
            elif not self.machine.enter(alone, label := self.plan.label(node.id)):
                self.progress.wait(node, _why_waiting(self.machine, alone))
                return False
            else:
                locks.callback(self.machine.leave, label)
                work, handle = self._run(node, keyed)
                self.running[handle] = _Started(node, keyed, work, locks.pop_all())
            return True

    def _damaged(self, node: Node) -> list[str]:
        """Name the nodes that this one needs and whose stored object does not match its digest any more."""
        return [name for name in node.needs if not self.store.check(self.progress.result.artifacts[name])]

    def _run(self, node: Node, keyed: Keyed) -> tuple[Path, Handle]:
        """Hand a node to the executor; return the directory that it writes, and the executor's handle."""
        from cpu_pipeline.engine.requests import step_request

        self.progress.start(node, self._why(node, keyed))
        store, work = self.store, self.lease.work(keyed.key)
        request = step_request(
            self.plan,
            node,
            self.progress.result.artifacts,
            out=work,
            scratch=store.scratch(keyed.key),
            log=store.log(keyed.key),
        )
        return work, self.executor.start(request)

    def _why(self, node: Node, keyed: Keyed) -> tuple[str, ...]:
        if self.store.find(keyed.key) is not None:
            return ("asked to measure again",)
        return reasons(self.store.last(self.plan.label(node.id)), keyed.ingredients)

    def _take(self, news: StepOutcome | StepAdvance) -> None:
        from cpu_pipeline.engine.executors._base import StepAdvance

        if isinstance(news, StepAdvance):
            self.progress.advance(self.running[news.handle].node, news.what, news.done, news.total)
        else:
            self._finish(news)

    def _finish(self, outcome: StepOutcome) -> None:
        """Store what a step wrote, or note why it failed."""
        started = self.running[outcome.handle]
        try:
            artifact = _commit(started, outcome, self.lease)
        except PipelineError as error:
            self._release(outcome.handle)
            self.progress.fail(started.node, error)
            return
        self._release(outcome.handle)
        self.progress.result.made.append(started.node.id)
        self._settle(started.node, artifact)
        self.progress.news(started.node, "built", seconds=outcome.seconds)

    def _release(self, handle: Handle) -> None:
        self.running.pop(handle).locks.close()


def _commit(started: _Started, outcome: StepOutcome, lease: Lease) -> StoredArtifact:
    """Store what a step wrote.

    Raises:
        PipelineError: the step failed, or what it wrote cannot be stored.
    """
    if isinstance(outcome.result, PipelineError):
        raise outcome.result
    node, keyed, ran = started.node, started.keyed, outcome.result
    require_same(node.stage, keyed.ingredients)
    try:
        node.stage.parse_facts(ran.facts)
    except ValueError as error:  # no later build could read the record
        raise StageFailed(f"its facts are not what it declares: {one_line(error)}") from error
    run = {"seconds": round(outcome.seconds, 3), "peak_memory": ran.peak_memory, "when": round(time.time())}
    artifact = lease.commit(keyed.key, keyed.ingredients, node.gives, ran.facts, run, started.work)
    lease.store.drop_scratch(keyed.key)
    return artifact


def require_same(stage: Stage, needed: Mapping[str, Any]) -> None:
    """Refuse what a step wrote when what it read outside its inputs is not what its key says any more.

    Raises:
        StageFailed: it changed during the build.
    """
    if stage.identity(sources.find) != needed["identity"]:
        raise StageFailed("what it reads changed during the build; run again once it rests")
    if other := changed(needed.get("plugins", {})):
        raise StageFailed(f"the code of {', '.join(other)} changed during the build; run again once it rests")


def _why_waiting(machine: MachineLock, alone: bool) -> str:
    """Say who holds the machine."""
    what = "the machine is not free for measuring" if alone else "a measurement runs, or waits to"
    holders = [hold for hold in machine.holders() if alone or hold.alone]
    return f"{what}: {'; '.join(map(str, holders[:3]))}" if holders else what


def _warn(plan: Plan, tell: Tell) -> None:
    """Tell what everybody who uses an environment of the plan has to know."""
    used = {name for node in plan.nodes.values() for name in environments_of(node.stage, plan.formats(node))}
    for name in sorted(used - {DEFAULT}):
        if warning := environments.get(name).warning:
            tell(Event(f"environment `{name}`", "warning", (warning,)))


def _require(plan: Plan, node: Node) -> None:
    """Check that what a node runs with is installed, before anything is locked.

    Raises:
        BackendMissing: names what is missing, and how to install it.
    """
    formats = plan.formats(node)
    if absent := missing(sorted(packages_of(node.stage, formats, plan.context.task))):
        raise BackendMissing(f"{node.label}: {', '.join(absent)} not installed; pip install 'cpu-pipeline[build]'")
    for name in environments_of(node.stage, formats):
        environments.interpreter(name)
