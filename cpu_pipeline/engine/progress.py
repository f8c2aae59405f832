"""How far a build is: which nodes wait, what was built, what failed; and the events about it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cpu_pipeline.core.errors import PipelineError, TryAgain
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine.estimate import Estimate
from cpu_pipeline.engine.keys import Keyed, key_of
from cpu_pipeline.engine.result import BuildResult, found_damaged
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.record import StoredArtifact

QUIET = 10.0
"""Seconds after which a node that runs is told of, though it told nothing."""
REMIND = 60.0
"""Seconds after which a node that still waits is reported again."""


class Progress:
    """How far the build of one plan is."""

    def __init__(self, plan: Plan, tell: Tell, estimate: Estimate) -> None:
        self.plan, self.tell, self.estimate = plan, tell, estimate
        self.result = BuildResult(plan)
        self.pending: dict[str, Node] = dict(plan.nodes)
        """Nodes that are neither running nor settled, in the order of the plan."""
        self._skipped = set[str]()
        self._keyed: dict[str, Keyed] = {}
        self._waiting: dict[str, float] = {}
        """Node -> when a waiting event was sent, as `time.monotonic()`."""

        self._advanced: dict[str, tuple[str, int, int]] = {}
        """Running node -> what it told last of how far it is."""
        self._told: dict[str, float] = {}
        """Running node -> when it told that."""

    def failed_need(self, node: Node) -> str | None:
        """Name a node that this one needs and that will not be built."""
        return next((name for name in node.needs if name in self.result.errors or name in self._skipped), None)

    def ready(self, node: Node) -> bool:
        """Say whether everything that a node needs is built."""
        return all(name in self.result.artifacts for name in node.needs)

    def keyed(self, node: Node) -> Keyed:
        """Return the key of a node that is ready."""
        if node.id not in self._keyed:
            self._keyed[node.id] = key_of(self.plan, node, self.result.artifacts)
        return self._keyed[node.id]

    def start(self, node: Node, why: Sequence[str]) -> None:
        """Note that a node runs now."""
        self.pending.pop(node.id, None)
        self.estimate.begin(node)
        self.news(node, "building", why)

    def news(self, node: Node, what: str, why: Sequence[str] = (), seconds: float = 0.0) -> None:
        """Tell what happened to a node, how far the build is, and the verdicts of a gate that is settled."""
        left = self._left() if what in ("building", "built") else None
        says = self._says(node) if what in ("built", "cached") else ""
        self.tell(Event(node.id, what, tuple(why), seconds, self._done, len(self.plan.nodes), left, says))
        if what in ("built", "cached"):
            facts = node.stage.parse_facts(self.result.artifacts[node.id].facts)
            for says in node.stage.notices(facts):
                self.tell(Event(node.id, "warning", (says,)))
        if (verdicts := self.result.verdicts.get(node.id)) and what in ("built", "cached"):
            for verdict in verdicts:
                if verdict.warning:
                    self.tell(Event(node.id, "warning", (verdict.says,)))
            failed = [verdict.says for verdict in verdicts if not verdict.passed]
            self.tell(Event(node.id, "FAILED" if failed else "passed", tuple(failed or (verdicts[-1].says,))))

    def _says(self, node: Node) -> str:
        """Say how many rows data has: one that is lost shows nowhere else."""
        artifact = self.result.artifacts.get(node.id)
        facts = artifact.facts if artifact is not None and node.use == "load.rows" else {}
        return f"{facts['rows']:,} of {facts['total']:,} rows" if {"rows", "total"} <= facts.keys() else ""

    def advance(self, node: Node, what: str, done: int, total: int) -> None:
        """Tell how far a node that runs is."""
        self._advanced[node.id] = what, done, total
        self._told[node.id] = time.monotonic()
        self.tell(Event(node.id, "progress", (what,) if what else (), 0.0, done, total, self._left()))

    def tick(self, running: Sequence[Node]) -> None:
        """Tell that nodes still run which have told nothing for long."""
        now = time.monotonic()
        for node in running:
            if now - self._told.setdefault(node.id, now) > QUIET:
                self.advance(node, *self._advanced.get(node.id, ("", 0, 0)))

    def _left(self) -> float | None:
        return self.estimate.left(self.pending)

    @property
    def _done(self) -> int:
        return len(self.result.artifacts) + len(self.result.errors) + len(self._skipped)

    def wait(self, node: Node, why: str) -> None:
        """Report that a node has to wait, and once more now and then."""
        now = time.monotonic()
        if node.id not in self._waiting or now - self._waiting[node.id] > REMIND:
            self._waiting[node.id] = now
            self.tell(Event(node.id, "waiting", (why,)))

    def skip(self, node: Node, because: str) -> None:
        """Note that a node is not built because the node `because` failed."""
        self.pending.pop(node.id, None)
        self._skipped.add(node.id)
        self.tell(Event(node.id, "skipped", (f"`{because}` failed",)))

    def settle(self, node: Node, artifact: StoredArtifact) -> None:
        """Note the artifact of a node that is built or cached."""
        self.pending.pop(node.id, None)
        self.estimate.end(node)
        self.result.add(node, self.keyed(node).key, artifact)

    def fail(self, node: Node, error: PipelineError) -> None:
        """Note why a node failed. What may succeed the next time (a full disk) would stop the others too: skip them."""
        self.pending.pop(node.id, None)
        self.estimate.end(node)
        text = str(error) if node.label in str(error) else f"{node.label}: {error}"
        self.result.errors[node.id] = type(error)(text)
        self.tell(Event(node.id, "failed", tuple(text.splitlines()[:1])))
        if isinstance(error, TryAgain):
            for other in list(self.pending.values()):
                self.skip(other, node.id)

    def build_again(self, damaged: Sequence[str]) -> None:
        """Make nodes pending again whose object turned out to be damaged, and was set aside."""
        for name in damaged:
            self.tell(found_damaged(name))
            self.result.discard(name)
        self.pending = {n: node for n, node in self.plan.nodes.items() if n in self.pending or n in damaged}
        # What is built again may come out different: keys that depend on it are computed again, too.
        self._keyed = {name: keyed for name, keyed in self._keyed.items() if name not in self.pending}
