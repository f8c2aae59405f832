"""The checked plan: nodes in an order that respects every edge, and the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.spec import Recipe
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task

NOT_MODELS = frozenset({"files", "rows", "predictions", "decision", "report", "teacher-outputs"})
"""Formats that the next step does not take by default."""
FIDELITY = "model:fidelity"
"""The node that compares the reference with transformers itself."""
APART = "data"
"""The node that checks that no two data roles share a row."""


@dataclass(frozen=True)
class Node:
    """One stage of a plan: its options set, its inputs wired."""

    id: str
    """Id of the step."""
    use: str
    """Name of its stage."""
    stage: Stage
    """The stage, with its options."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input name -> node id."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Role -> node id of its rows."""
    after: tuple[str, ...] = ()
    """Nodes that must have succeeded before, though their artifacts are not read."""
    timeout: float | None = None
    """Seconds after which it is stopped."""
    where: str = ""
    """`file:line:column`, for messages."""

    @property
    def gives(self) -> str:
        return self.stage.gives()

    @property
    def reads(self) -> tuple[str, ...]:
        """Return every node whose artifact this one reads."""
        return (*self.inputs.values(), *self.data.values())

    @property
    def needs(self) -> tuple[str, ...]:
        """Return every node that comes before this one."""
        return tuple(dict.fromkeys((*self.reads, *self.after)))

    def fits(self, artifact: Artifact) -> bool:
        """Say whether an artifact can be of this stage: its format is right, and its facts are of the stage's class."""
        try:
            self.stage.parse_facts(artifact.facts)
        except ValueError:
            return False
        return artifact.format == self.gives

    @property
    def label(self) -> str:
        """Name the step and its stage, as messages do."""
        return f"step `{self.id}` ({self.use})"


@dataclass(frozen=True)
class Outside:
    """A path of a recipe that leads out of the recipe's directory."""

    keys: Keys
    """Where the recipe has it."""
    where: str
    """`file:line:column` of it."""
    written: str
    """The path as the recipe writes it."""
    path: Path
    """Where it leads, without links."""
    allowed: bool
    """Whether the user allows it; else it may be shown, and not read."""


@dataclass(frozen=True)
class Plan:
    """Nodes in an order that respects every edge, and the outputs."""

    name: str
    """Name of the recipe."""
    path: Path
    """The recipe's file."""
    recipe: Recipe
    """The recipe as written."""
    nodes: Mapping[str, Node]
    """Node id -> node, in an order of building."""
    outputs: tuple[str, ...]
    """Steps whose artifacts are published."""
    context: Context
    """What stages can read of the recipe."""
    resolved: Recipe
    """The recipe with the steps of its pipeline as `stages`, the options of `with:` and --set merged into them."""
    outside: tuple[Outside, ...] = ()
    """The paths that lead out of the recipe's directory."""
    withheld: Withheld | None = None
    """Why its outputs are never put into service; None where they are once every gate passed."""
    unchecked: Mapping[str, str] = field(default_factory=dict)
    """Output whose answers no gate judges against the float model -> why it is put into service all the same."""
    sets: tuple[str, ...] = ()
    """What --set changed of the recipe, as STEP.OPTION=VALUE."""
    promoted_anyway: str | None = None
    """Why it is put into service though --set changed the recipe."""
    remembered_as: str = ""
    """Name under which the store remembers how its steps were built last; the recipe's when empty."""

    def label(self, node_id: str) -> str:
        """Name a step for the store, which remembers its last build and how long that took."""
        return f"{self.remembered_as or self.name}/{node_id}"

    def formats(self, node: Node) -> dict[str, str]:
        """Return the format of each of the node's inputs."""
        return {name: self.nodes[source].gives for name, source in node.inputs.items()}

    def ancestors(self, node_id: str) -> set[str]:
        """Name a node and every node that it reads, directly or not."""
        found, waiting = set[str](), [node_id]
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += self.nodes[name].reads
        return found

    def until(self, step: str) -> Plan:
        """Keep one step and its ancestors; nothing is published.

        Raises:
            RecipeError: no step has this name.
        """
        if step not in self.nodes:
            raise RecipeError(f"--until {step}: no step is called `{step}`{did_you_mean(step, self.nodes)}")
        wanted = self.ancestors(step)
        if FIDELITY in self.nodes and "model" in wanted - {step}:
            wanted |= self.ancestors(FIDELITY)
        if APART in self.nodes and len({n for n in wanted if n.startswith("data.") and ":" not in n}) > 1:
            wanted |= self.ancestors(APART)
        nodes = {
            name: replace(node, after=tuple(n for n in node.after if n in wanted))
            for name, node in self.nodes.items()
            if name in wanted
        }
        return replace(self, nodes=nodes, outputs=())


@dataclass(frozen=True)
class Withheld:
    """Why what a plan builds is never put into service, and where it goes instead."""

    reasons: tuple[str, ...]
    """One at least, each a clause about the build: `it is a trial on ...`."""
    folder: str
    """Below `artifacts/NAME`."""
    besides: tuple[str, ...] = ()
    """Steps whose artifacts go there, though they are no models."""


@dataclass(frozen=True)
class Context:
    """The parts of a recipe that stages may read, besides data."""

    task: Task | None
    task_name: str | None
    """As recipes spell it."""
    isa: tuple[str, ...]
    """Instruction sets to build for."""
    threads: int
    allow: tuple[str, ...] = ()


CHECKS = "checks"
"""The directory of a version with the measurements of every gate, beside those of the outputs."""
