"""Build a recipe in an empty store and compare each step with the cached one: a test of reproducibility."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cpu_pipeline.core.artifact import Artifact, list_tree
from cpu_pipeline.core.errors import Stale
from cpu_pipeline.core.events import Tell
from cpu_pipeline.engine import build
from cpu_pipeline.engine.graph_digest import graph_digest
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store

Equality = Literal["identical", "same", "different"]
"""identical: byte for byte; same: the graph computes the same, its names or order differ."""


@dataclass(frozen=True)
class Compared:
    """How one step of two builds compares."""

    step: str
    """Id of the step."""
    verdict: Equality
    """`same` graphs compute the same, with other names or another order."""
    says: str = ""
    """What differs."""


def repeatable(plan: Plan) -> Plan:
    """Leave out measurements of this machine: no two runs measure the same."""
    nodes = {name: node for name, node in plan.nodes.items() if node.stage.host() != "machine"}
    return replace(plan, nodes=nodes)


def rebuild(
    plan: Plan,
    store: Store,
    *,
    tell: Tell = lambda _: None,
    jobs: int = 1,
    check: Callable[[BuildResult], None] = lambda _: None,
) -> list[Compared]:
    """Build a plan in an empty store, and compare each step with the one in `store`, which is built if it is missing.

    Args:
        plan: what to build.
        store: the cache to compare with.
        tell: called with every event.
        jobs: how many steps may run at once.
        check: called with the cached build before the other one begins; it may raise.

    Raises:
        PipelineError: a step failed, in either build.
    """
    wanted = repeatable(plan)
    with leased(store) as lease:
        cached = _require_complete(build.build(wanted, store, tell=tell, jobs=jobs, lease=lease))
        check(cached)
        # In the lease's directory: the next build removes it if this process is killed.
        cold = _require_complete(build.build(wanted, Store(lease.folder / "cold"), tell=tell, jobs=jobs))
        return list(compare(cached, cold))


def compare(cached: BuildResult, cold: BuildResult) -> Iterator[Compared]:
    """Compare every step of two builds of one plan."""
    for name in cached.plan.nodes:
        before, after = cached.artifacts[name], cold.artifacts[name]
        if before.digest == after.digest:
            yield Compared(name, "identical")
            continue
        changed = ", ".join(sorted(_changed(before, after)))
        graph = graph_digest(before)
        if graph is not None and graph == graph_digest(after) and _rest(before) == _rest(after):
            yield Compared(name, "same", f"names or order differ in {changed}; what is computed does not")
        else:
            yield Compared(name, "different", changed)


def require_repeated(found: list[Compared]) -> None:
    """Refuse when a step came out different.

    Raises:
        Stale: names the steps and their files.
    """
    different = [step for step in found if step.verdict == "different"]
    if different:
        lines = "".join(f"\n  step `{step.step}`: {step.says}" for step in different)
        raise Stale(f"built again, {len(different)} of {len(found)} steps came out different:{lines}")


def _require_complete(built: BuildResult) -> BuildResult:
    """Return a build whose every step succeeded; raise the first error of another."""
    for error in built.errors.values():
        raise error
    return built


def _changed(before: Artifact, after: Artifact) -> set[str]:
    """Name the files that differ."""
    old, new = list_tree(before.path), list_tree(after.path)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _rest(artifact: Artifact) -> dict[str, tuple[int, str]]:
    """List the files beside the graph."""
    graph = (".onnx", ".onnx_data", ".xml", ".bin")
    return {name: file for name, file in list_tree(artifact.path).items() if not name.endswith(graph)}
