"""Build a recipe cold and compare it with the cached build, step by step: the proof that a build can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cpu_pipeline.core.artifact import Artifact, list_tree
from cpu_pipeline.core.errors import Stale
from cpu_pipeline.core.events import Tell
from cpu_pipeline.engine import build
from cpu_pipeline.engine.graph_digest import meaning
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store

Verdict = Literal["identical", "same", "different"]


@dataclass(frozen=True)
class Compared:
    """How one step of two builds compares."""

    step: str
    verdict: Verdict
    says: str = ""


def repeatable(plan: Plan) -> Plan:
    """Leave out what this machine measures: no two runs measure the same."""
    nodes = {name: node for name, node in plan.nodes.items() if node.stage.host() != "machine"}
    return replace(plan, nodes=nodes)


def rebuild(
    plan: Plan,
    store: Store,
    *,
    tell: Tell = lambda _: None,
    jobs: int = 1,
    hold: Callable[[BuildResult], None] = lambda _: None,
) -> list[Compared]:
    """Build a plan from nothing in an empty store, and compare each step with what `store` keeps, or makes now.

    Args:
        plan: what to build.
        store: has the build that it is compared with.
        tell: called with every event.
        jobs: how many steps may run at once.
        hold: called with the cached build, before the cold one; what it raises ends it.

    Raises:
        PipelineError: a step failed, in either build.
    """
    wanted = repeatable(plan)
    with leased(store) as lease:
        kept = _whole(build.build(wanted, store, tell=tell, jobs=jobs, lease=lease))
        hold(kept)
        # In the lease's own room: whoever comes next sweeps it if this one is killed.
        cold = _whole(build.build(wanted, Store(lease.folder / "cold"), tell=tell, jobs=jobs))
        return list(compare(kept, cold))


def compare(kept: BuildResult, cold: BuildResult) -> Iterator[Compared]:
    """Compare every step of two builds of one plan."""
    for name in kept.plan.nodes:
        before, after = kept.artifacts[name], cold.artifacts[name]
        if before.digest == after.digest:
            yield Compared(name, "identical")
            continue
        changed = ", ".join(sorted(_changed(before, after)))
        graph = meaning(before)
        if graph is not None and graph == meaning(after) and _rest(before) == _rest(after):
            yield Compared(name, "same", f"names or order differ in {changed}; what is computed does not")
        else:
            yield Compared(name, "different", changed)


def require_repeated(found: list[Compared]) -> None:
    """Refuse when a step came out different.

    Raises:
        Stale: says which, and in which files.
    """
    different = [one for one in found if one.verdict == "different"]
    if different:
        lines = "".join(f"\n  step `{one.step}`: {one.says}" for one in different)
        raise Stale(f"built again, {len(different)} of {len(found)} steps came out different:{lines}")


def _whole(built: BuildResult) -> BuildResult:
    for error in built.errors.values():
        raise error
    return built


def _changed(before: Artifact, after: Artifact) -> set[str]:
    """Name the files that differ."""
    one, two = list_tree(before.path), list_tree(after.path)
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


def _rest(artifact: Artifact) -> dict[str, tuple[int, str]]:
    """List the files beside the graph."""
    graph = (".onnx", ".onnx_data", ".xml", ".bin")
    return {name: said for name, said in list_tree(artifact.path).items() if not name.endswith(graph)}
