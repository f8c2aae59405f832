"""How far a build is: which nodes wait, what was built, what failed; and the events about it."""

from __future__ import annotations

from collections.abc import Sequence

from cpu_pipeline.core.errors import PipelineError, TryAgain
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.engine.keys import Keyed, key_of
from cpu_pipeline.engine.result import BuildResult, found_damaged
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.store.record import StoredArtifact


class Progress:
    """How far the build of one plan is."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self.plan, self.tell = plan, tell
        self.result = BuildResult(plan)
        self.pending: dict[str, Node] = dict(plan.nodes)
        """Nodes that are neither running nor settled, in the order of the plan."""
        self._skipped = set[str]()
        self._keyed: dict[str, Keyed] = {}
        self._waiting = set[str]()
        """Nodes for which a waiting event was sent."""

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
        self.tell(Event(node.id, "building", tuple(why)))
        self.pending.pop(node.id, None)

    def wait(self, node: Node, why: str) -> None:
        """Report that a node has to wait; once for each node."""
        if node.id not in self._waiting:
            self._waiting.add(node.id)
            self.tell(Event(node.id, "waiting", (why,)))

    def skip(self, node: Node, because: str) -> None:
        """Note that a node is not built because the node `because` failed."""
        self.pending.pop(node.id, None)
        self._skipped.add(node.id)
        self.tell(Event(node.id, "skipped", (f"`{because}` failed",)))

    def settle(self, node: Node, artifact: StoredArtifact) -> None:
        """Note the artifact of a node that is built or cached."""
        self.pending.pop(node.id, None)
        self.result.add(node, self.keyed(node).key, artifact)

    def fail(self, node: Node, error: PipelineError) -> None:
        """Note why a node failed. What may succeed the next time (a full disk) would stop the others too: skip them."""
        self.pending.pop(node.id, None)
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
