"""Builds a plan, reusing the store; collects verdicts. One thread, many children."""

from __future__ import annotations

import contextlib
import selectors
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import BaseFileLock, Timeout

from cpu_pipeline import sources
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed, TryAgain, interruption
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT, Interpreter
from cpu_pipeline.engine.keys import needs, reasons
from cpu_pipeline.engine.machine_lock import MachineLock
from cpu_pipeline.engine.packages import missing
from cpu_pipeline.engine.requirements import environments_of, home_environment, packages_of
from cpu_pipeline.engine.result import BuildResult, found_damaged
from cpu_pipeline.engine.worker.process import WorkerProcess, tail
from cpu_pipeline.engine.worker.protocol import request
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.lease import Lease, leased
from cpu_pipeline.store.local import Store

TICK = 0.1
"""Seconds between looks at timeouts and other builds' locks."""
SAMPLE = 0.5
"""Seconds between looks at the memory of children."""
HEAVY = 768 << 20
"""Bytes that a child may still hold after a node and be used again; what it holds adds to the next node's peak."""


def build(
    plan: Plan,
    store: Store,
    tell: Tell = lambda _: None,
    jobs: int = 1,
    remeasure: bool = False,
    lease: Lease | None = None,
) -> BuildResult:
    """Build every node of a plan; branches that don't need a failed node go on.

    Args:
        plan: what to build.
        store: where it is kept.
        tell: called with every event.
        jobs: how many nodes may run at once.
        remeasure: measure anew what depends on this machine (latency), though it is known.
        lease: of whoever needs what was built afterwards; `gc` may take it once the lease is over. One of its own,
            over with the build, when None.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the children are gone, what was finished is in the store.
    """
    with leased(store) if lease is None else contextlib.nullcontext(lease) as held:
        running = _Build(plan, store, held, tell, jobs, remeasure)
        try:
            return running.go()
        except KeyboardInterrupt as by:
            running.end(grace=5.0)
            raise interruption(by, "interrupted; the same command goes on from what is finished") from None
        finally:
            running.end(grace=0.0)


@dataclass
class _Run:
    """A node that is being built."""

    node: Node
    key: str
    needed: dict[str, Any]
    child: WorkerProcess
    work: Path
    log: Path
    lock: BaseFileLock
    began: float


class _Build:
    """The work of `build`."""

    def __init__(self, plan: Plan, store: Store, lease: Lease, tell: Tell, jobs: int, remeasure: bool) -> None:
        self.plan, self.store, self.lease, self.tell = plan, store, lease, tell
        self.jobs, self.remeasure = max(1, jobs), remeasure
        self.built = BuildResult(plan)
        self.pending: dict[str, Node] = dict(plan.nodes)
        self.needed: dict[str, dict[str, Any]] = {}
        self.running: list[_Run] = []
        self.idle: list[WorkerProcess] = []
        self.waiting: set[str] = set()
        self.dropped: set[str] = set()
        """Nodes that are not built because something they need failed."""
        self.absent: set[str] = set()
        """Keys that were looked for in vain; looked for again once their lock is ours."""
        self.sampled = 0.0
        self.machine = MachineLock()

    def go(self) -> BuildResult:
        places = {p for node in self.plan.nodes.values() for p in environments_of(node.stage, self.plan.formats(node))}
        for name in sorted(places - {DEFAULT}):
            if warning := environments.read(name).warning:
                self.tell(Event(f"environment `{name}`", "warning", (warning,)))
        while self.pending or self.running:
            moved = self._start()
            if self.running:
                self._watch()
            elif not moved and self.pending:
                time.sleep(TICK)
        return self.built

    def end(self, grace: float) -> None:
        """End every child and give back every lock."""
        try:
            for run in self.running:
                if grace:
                    run.child.stop(grace)
        finally:
            for run in self.running:
                run.child.kill()
                run.lock.release()
                self.machine.leave()
            self.running.clear()
            self.machine.close()
            for child in self.idle:
                child.close()
            self.idle.clear()

    def _start(self) -> bool:
        """Settle what is known already, start what can be started; say whether anything moved."""
        moved = False
        for node in list(self.pending.values()):
            if node.id not in self.pending:  # a full disk has ended it all, a moment ago
                continue
            broken = [n for n in node.needs if n in self.built.errors or n in self.dropped]
            if broken:
                self._drop(node, broken[0])
                moved = True
            elif all(n in self.built.artifacts for n in node.needs):
                moved |= self._settle(node)
        self.machine.look_round()
        return moved

    def _drop(self, node: Node, because: str) -> None:
        del self.pending[node.id]
        self.dropped.add(node.id)
        self.tell(Event(node.id, "skipped", (f"`{because}` failed",)))

    def _settle(self, node: Node) -> bool:
        try:
            if node.id not in self.needed:
                self.needed[node.id] = needs(self.plan, node, self.built.artifacts)
            key = digest_json(self.needed[node.id])
            again = self.remeasure and node.stage.host() == "machine"
            if not again and key not in self.absent and (found := self._find(node, key)) is not None:
                self._done(node, key, found)
                self.tell(Event(node.id, "kept", self._brought(key)))
                return True
            self.absent.add(key)
            return self._launch(node, key, again)
        except PipelineError as error:
            self._fail(node, error)
            return True

    def _find(self, node: Node, key: str) -> Artifact | None:
        """Find what was built for a node; what its stage can't have written is set aside, and so a miss."""
        found = self.lease.find(key)
        if found is None or node.fits(found):
            return found
        force = " (`store push --force` mends the remote store)" if key in self.lease.brought else ""
        says = f"the record {key[:12]} is not what its stage writes; set aside, building it here{force}"
        self.tell(Event(node.id, "warning", (says,)))
        self.lease.refuse(key, found)
        return None

    def _brought(self, key: str) -> tuple[str, ...]:
        return ("the remote store had it",) if key in self.lease.brought else ()

    def _launch(self, node: Node, key: str, again: bool) -> bool:
        """Start a node, unless something it needs is taken just now."""
        if len(self.running) >= self.jobs or (self.running and node.stage.alone):
            return False
        if any(run.node.stage.alone for run in self.running):
            return False
        if absent := missing(sorted(packages_of(node.stage, self.plan.formats(node), self.plan.context.task))):
            raise BackendMissing(f"{node.label}: {', '.join(absent)} not installed; pip install 'cpu-pipeline[build]'")
        for name in environments_of(node.stage, self.plan.formats(node)):
            environments.interpreter(name)  # a missing one fails here, before anything is locked
        lock = self.store.lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._wait_for(node, "another build is making it")
            return False
        try:
            if not again and (found := self._find(node, key)) is not None:
                lock.release()
                self._done(node, key, found)
                self.tell(Event(node.id, "kept", ("another build has just made it",)))
                return True
            if damaged := [n for n in node.needs if not self.store.check(self.built.artifacts[n])]:
                lock.release()
                self._rebuild(damaged)
                return True
            if not self.machine.enter(node.stage.alone):
                lock.release()
                self._wait_for(
                    node, "the machine is not free for measuring" if node.stage.alone else "a measurement runs"
                )
                return False
        except BaseException:
            lock.release()
            raise
        self._run(node, key, lock)
        return True

    def _wait_for(self, node: Node, why: str) -> None:
        if node.id not in self.waiting:
            self.waiting.add(node.id)
            self.tell(Event(node.id, "waiting", (why,)))

    def _rebuild(self, damaged: list[str]) -> None:
        """A stored object is not what it claims to be: it has been set aside; make it again."""
        for name in damaged:
            self.tell(found_damaged(name))
            self.built.artifacts.pop(name)
            self.pending = {n: node for n, node in self.plan.nodes.items() if n in self.pending or n == name}
        # What is made again may come out different: keys that hang on it are made anew, too.
        self.needed = {n: needed for n, needed in self.needed.items() if n not in self.pending}

    def _run(self, node: Node, key: str, lock: BaseFileLock) -> None:
        needed = self.needed[node.id]
        before = self.store.last(f"{self.plan.name}/{node.id}")
        why = ("asked to measure again",) if self.store.action(key) is not None and self.store.find(key) else None
        self.tell(Event(node.id, "building", why or reasons(before, needed)))
        work, log = self.lease.work(key), self.store.log(key)
        log.unlink(missing_ok=True)
        formats = self.plan.formats(node)
        where = home_environment(node.stage, formats)
        places = {name: environments.interpreter(name) for name in {DEFAULT, *environments_of(node.stage, formats)}}
        child = self._child(places[where], node.stage.online)
        context = self.plan.context
        # Not a share of the cores: sums of floats follow the number of threads, and no output may follow --jobs.
        threads = context.threads if node.stage.alone else host.cores()
        task = context.task
        child.ask(
            request(
                node.use,
                # What was set, and nothing else: a stage may refuse an option that is of no use beside another.
                node.stage.model_dump(mode="json", exclude_unset=True),
                {name: self.built.artifacts[source] for name, source in node.inputs.items()},
                work,
                task=None if task is None else {"use": context.task_name, "with": task.model_dump(mode="json")},
                data={role: str(self.built.artifacts[n].path / "rows.jsonl") for role, n in node.data.items()},
                scratch=str(self.store.scratch(key)),
                threads=threads,
                isa=list(context.isa),
                allow=sorted(context.allow),
                log=str(log),
                environment=where,
                interpreters={name: {"python": p.python, "paths": list(p.paths)} for name, p in places.items()},
            )
        )
        del self.pending[node.id]
        self.running.append(_Run(node, key, needed, child, work, log, lock, time.monotonic()))

    def _watch(self) -> None:
        """Wait a moment for any child; take in what has ended."""
        with selectors.DefaultSelector() as ready:
            for run in self.running:
                ready.register(run.child.replies, selectors.EVENT_READ, run)
            ended: list[_Run] = [key.data for key, _ in ready.select(TICK)]
        look = time.monotonic() - self.sampled > SAMPLE
        self.sampled = time.monotonic() if look else self.sampled
        for run in list(self.running):
            if run in ended:
                self._finish(run)
                continue
            if look:
                run.child.sample()
            if run.node.timeout is not None and time.monotonic() - run.began > run.node.timeout:
                run.child.stop()
                self._over(run)
                says = f"stopped: it ran longer than its timeout of {run.node.timeout:g} s"
                self._fail(run.node, StageFailed(_with_log(f"{run.node.label}: {says}", run.log)))

    def _finish(self, run: _Run) -> None:
        seconds = time.monotonic() - run.began
        try:
            said = run.child.answer()
        except PipelineError as error:
            run.child.kill()
            self._over(run)
            text = f"{run.node.label}: {error}"
            self._fail(run.node, type(error)(_with_log(text, run.log) if error.exit_code == 1 else text))
            return
        self._keep_child(run.child)
        info = {
            "seconds": round(seconds, 3),
            "peak_memory": said["peak_memory"],
            "when": round(time.time()),
        }
        try:
            if run.node.stage.identity(sources.find) != run.needed["identity"]:
                raise StageFailed("what it reads changed during the build; run again once it rests")
            made = self.lease.commit(run.key, run.needed, run.node.gives, said["facts"], info, run.work)
            self.store.drop_scratch(run.key)
        except PipelineError as error:
            self._over(run)
            self._fail(run.node, type(error)(f"{run.node.label}: {error}"))
            return
        self._over(run)
        self.built.made.append(run.node.id)
        self._done(run.node, run.key, made)
        self.tell(Event(run.node.id, "built", seconds=seconds))

    def _child(self, interpreter: Interpreter, online: bool) -> WorkerProcess:
        """Take a child that is idle, or start one; those that are online never run anything but fetches."""
        for child in self.idle:
            if child.online == online and child.interpreter == interpreter:
                self.idle.remove(child)
                return child
        return WorkerProcess(interpreter, online)

    def _keep_child(self, child: WorkerProcess) -> None:
        heavy = True
        with contextlib.suppress(psutil.Error):
            heavy = psutil.Process(child.process.pid).memory_info().rss > HEAVY
        if heavy:
            child.close()
        else:
            self.idle.append(child)

    def _over(self, run: _Run) -> None:
        self.running.remove(run)
        run.lock.release()
        self.machine.leave()

    def _done(self, node: Node, key: str, artifact: Artifact) -> None:
        self.pending.pop(node.id, None)
        if (record := self.store.action(key)) is None:
            self._fail(
                node, TryAgain("its record was removed from the store during the build; run the same command again")
            )
            return
        self.built.artifacts[node.id] = artifact
        self.built.keys[node.id] = key
        self.built.records[node.id] = record
        self.store.remember(f"{self.plan.name}/{node.id}", key)
        if verdicts := node.stage.judge(node.stage.parse_facts(artifact.facts)):
            self.built.verdicts[node.id] = verdicts

    def _fail(self, node: Node, error: PipelineError) -> None:
        self.pending.pop(node.id, None)
        text = str(error) if node.label in str(error) else f"{node.label}: {error}"
        self.built.errors[node.id] = type(error)(text)
        self.tell(Event(node.id, "failed", tuple(text.splitlines()[:1])))
        if isinstance(error, TryAgain):
            for other in list(self.pending.values()):
                self._drop(other, node.id)


def _with_log(text: str, log: Path) -> str:
    lines = "".join(f"\n    {line}" for line in tail(log))
    return f"{text}; its log is {log}" + (f", which ends:{lines}" if lines else "")
