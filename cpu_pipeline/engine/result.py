"""The result of a build, and building again where a stored object turns out to be damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError, Refused
from cpu_pipeline.core.events import Event, Tell
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.stages._base import Verdict, Waiver
from cpu_pipeline.store.record import Action, StoredArtifact

B = TypeVar("B")
T = TypeVar("T")


@dataclass
class BuildResult:
    """What a build produced, by node."""

    plan: Plan
    """The plan."""
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Node id -> its artifact."""
    keys: dict[str, str] = field(default_factory=dict)
    """Node id -> its key in the store."""
    records: dict[str, Action] = field(default_factory=dict)
    """Node id -> its record in the store: ingredients, files, facts, how its run went."""
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    """Node id -> the verdicts of its checks."""
    made: list[str] = field(default_factory=list)
    """Nodes that ran; the others were cached."""
    errors: dict[str, PipelineError] = field(default_factory=dict)
    """Node id -> why it failed."""

    def add(self, node: Node, key: str, artifact: StoredArtifact) -> None:
        """Note a node that is built or cached: its artifact, key and record, and the verdicts of its checks.

        Args:
            node: the node.
            key: its key.
            artifact: what the store has for the key.
        """
        self.artifacts[node.id] = artifact
        self.keys[node.id] = key
        self.records[node.id] = artifact.record
        if verdicts := node.stage.judge(node.stage.parse_facts(artifact.facts)):
            waiver = node.stage.waiver()
            self.verdicts[node.id] = verdicts if waiver is None else [_waived(one, waiver) for one in verdicts]

    def discard(self, name: str) -> None:
        """Forget a node that is to be built again."""
        for noted in (self.artifacts, self.keys, self.records, self.verdicts):
            noted.pop(name, None)
        self.made = [made for made in self.made if made != name]

    @property
    def passed(self) -> bool:
        """Say whether everything was built and every check passed."""
        return not self.errors and all(v.passed for found in self.verdicts.values() for v in found)

    def summary(self) -> dict[str, Any]:
        """Return what the record of a run notes of the build, as JSON values."""
        return {
            "steps": {
                "made": list(self.made),
                "kept": [name for name in self.artifacts if name not in self.made],
                "failed": {name: str(error).partition("\n")[0] for name, error in self.errors.items()},
            },
            "verdicts": {name: [vars(verdict) for verdict in found] for name, found in self.verdicts.items()},
            "puts_out": [] if self.plan.withheld is not None else list(self.plan.outputs),
            **({} if self.plan.withheld is None else {"withheld": list(self.plan.withheld.reasons)}),
        }


def _waived(verdict: Verdict, waiver: Waiver) -> Verdict:
    """Let a failed check pass, and say so wherever it is shown."""
    if verdict.passed:
        return verdict
    return replace(verdict, passed=True, waived=str(waiver), says=f"failed, and waived {waiver}: {verdict.says}")


class Damaged(Refused):
    """A stored object of a build has changed; it was set aside, and can be built again."""

    def __init__(self, node: str) -> None:
        super().__init__(
            f"the object of `{node}` in the store was damaged; set aside: run the command again to build it again"
        )
        self.node = node


def repaired(building: Callable[[], B], using: Callable[[B], T], tell: Tell) -> tuple[B, T]:
    """Build, and use the result; when an object turns out to be damaged, warn, build it again and use the new result.

    Args:
        building: builds; called again for each damaged object, which was set aside and is missing then.
        using: uses the result; raises `Damaged` before it changes anything.
        tell: called with every event.

    Returns:
        The last result, and what `using` returned for it.

    Raises:
        Damaged: an object that was built again is damaged again.
    """
    found = set[str]()
    while True:
        built = building()
        try:
            return built, using(built)
        except Damaged as error:
            if error.node in found:
                raise
            found.add(error.node)
            tell(found_damaged(error.node))


def found_damaged(node: str) -> Event:
    """Return the warning that an object is built again."""
    return Event(node, "warning", ("its object in the store was damaged; set aside, building it again",))
