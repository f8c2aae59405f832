"""Compare a candidate with the baseline, the version in service, by the recipe's own gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cpu_pipeline.core.errors import PipelineError, TryAgain
from cpu_pipeline.core.events import Tell
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.refresh import baseline
from cpu_pipeline.refresh.baseline import Baseline
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.stages._base import Verdict


@dataclass(frozen=True)
class Comparison:
    """The gates that compare a candidate with the baseline, before they run."""

    plan: Plan
    """The candidate's plan, with these gates."""
    gates: Mapping[str, Node]
    own_gates: Mapping[str, frozenset[str]]
    """Output -> the gates that judge it, and not a step that uses it."""
    warnings: Sequence[str]
    """Outputs that no gate compares."""


@dataclass(frozen=True)
class Compared:
    """The results of the gates against the baseline."""

    verdicts: Mapping[str, Sequence[Verdict]]
    """Gate -> its verdicts."""
    changes: Mapping[str, list[str]]
    """Gate -> each figure, reference → candidate."""
    ran: frozenset[str]
    """Steps that ran; the others were cached."""
    warnings: Sequence[str] = ()
    """Gates that could not run, beside others that could."""
    error: PipelineError | None = None
    """Why an output was not compared, though a gate should have done so."""


def prepare(standing: Baseline, built: BuildResult, earlier: Sequence[Standing] = ()) -> Comparison:
    """Find the gates that compare a build with the baseline, and name the outputs that none compares.

    Args:
        standing: the version in service.
        built: the candidate's build.
        earlier: versions that were in service before, the newest first: the best of them is compared with, too.
    """
    plan = baseline.against(standing, built)
    best = baseline.against_best(earlier, built)
    plan = replace(plan, nodes={**plan.nodes, **best.nodes})
    gates = {name: node for name, node in plan.nodes.items() if name not in built.plan.nodes and node.stage.successor()}
    own = {
        output: frozenset(gate for gate, node in gates.items() if baseline.judged(plan, node) == output)
        for output in built.plan.outputs
    }
    warnings = []
    for output in built.plan.outputs:
        if output not in standing.models:
            warnings.append(f"`{output}` is not in service yet: nothing to compare it with")
        elif standing.models[output].digest != built.artifacts[output].digest and not any(
            output in plan.ancestors(gate) for gate in gates
        ):
            warnings.append(f"no gate of this recipe compares `{output}` with what is in service")
    return Comparison(plan, gates, own, warnings)


def run(comparison: Comparison, built: BuildResult, builder: Builder, *, remeasure: bool = False) -> Compared:
    """Run the gates of a comparison.

    Args:
        comparison: what `prepare` returned for the build.
        built: the candidate's build.
        builder: runs the gates as steps of a plan.
        remeasure: measure again what depends on this machine.
    """
    gates = comparison.gates
    if not gates:
        return Compared({}, {}, frozenset())
    # Without the gates that the build has just judged: their measurements are not repeated.
    nodes = {name: node for name, node in comparison.plan.nodes.items() if name not in built.verdicts}
    plan = replace(comparison.plan, nodes=nodes)
    compared = builder.build(plan, remeasure=remeasure, tell=_news(builder.tell, built.plan))
    unjudged = [
        output for output, own in comparison.own_gates.items() if own and own.isdisjoint(compared.artifacts)
    ]  # fmt: skip
    errors = compared.errors
    blocking = (error for error in errors.values() if unjudged or isinstance(error, TryAgain))
    return Compared(
        {gate: found for gate, found in compared.verdicts.items() if gate in gates},
        {
            gate: node.stage.changes(node.stage.parse_facts(compared.artifacts[gate].facts))
            for gate, node in gates.items()
            if gate in compared.artifacts
        },
        frozenset(compared.made),
        [
            f"`{node}` could not be compared with what is in service: {str(error).splitlines()[0]}"
            for node, error in errors.items()
        ],
        next(blocking, None),
    )


def _news(tell: Tell, before: Plan) -> Tell:
    """Leave out events of the steps that the candidate's own build has reported."""
    return lambda event: None if event.node in before.nodes else tell(event)
