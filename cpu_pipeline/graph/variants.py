"""Variants of a plan that are built and reported, and never put into service: trials, parts, builds without a gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cpu_pipeline import stages
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.graph.plan import NOT_MODELS, Node, Plan, Withheld

READING = "load.rows"
"""Stage that reads the rows of a data role."""
SET, TRIAL, UNCHECKED, UNTIL = "set", "trial", "unchecked", "until"
"""Directories of `artifacts/NAME/` that such builds go to; `release.manifest.ASIDE` has them all."""


def withheld(plan: Plan, reason: str, folder: str, *besides: str) -> Plan:
    """Mark a plan: what it builds is reported and never put into service.

    Args:
        plan: the plan.
        reason: why, as a sentence for people; it is added to those that the plan has.
        folder: where its outputs go instead, below `artifacts/NAME`; the last one counts.
        besides: steps that go there with the outputs.
    """
    before = plan.withheld.reasons if plan.withheld is not None else ()
    return replace(plan, withheld=Withheld((*before, reason), folder, besides))


def until(plan: Plan, step: str) -> Plan:
    """Keep one step and what it needs; the step is the output.

    Raises:
        RecipeError: no step has this name.
    """
    part = plan.until(step)
    model = part.nodes[step].gives not in NOT_MODELS
    marked = replace(part, outputs=(step,) if model else ())
    reason = f"it was built until `{step}` (--until)"
    return withheld(marked, reason, f"{UNTIL}/{step}", *(() if model else (step,)))


def trial(plan: Plan, rows: int) -> Plan:
    """Cut every data role to at most `rows` rows, and every measurement to what shows that it works."""
    nodes = {name: _tried(node, rows) for name, node in plan.nodes.items()}
    reason = f"it is a trial on at most {rows} rows of each role, with short measurements (--limit {rows})"
    # Its keys are not those of the whole build, which would be built "because" of the trial before it.
    return withheld(replace(plan, nodes=nodes, remembered_as=f"{plan.name} ({TRIAL})"), reason, TRIAL)


def _tried(node: Node, rows: int) -> Node:
    if node.use != READING:
        return replace(node, stage=node.stage.trial(rows))
    use = "load.few"
    return replace(node, use=use, stage=stages.get(use)(**{**node.stage.model_dump(exclude_unset=True), "most": rows}))


def measuring(plan: Plan) -> list[str]:
    """Name the steps that measure time."""
    return [name for name, node in plan.nodes.items() if node.stage.alone]


def unmeasured(plan: Plan) -> Plan:
    """Leave out what measures time; a plan that measures nothing stays as it is."""
    if not (gates := measuring(plan)):
        return plan
    return withheld(_without(plan, gates), f"{_named(gates)} did not measure it (--no-measure)", UNCHECKED)


def skipping(plan: Plan, gates: Sequence[str]) -> Plan:
    """Leave out gates by name.

    Raises:
        RecipeError: there is no such step, or other steps need it.
    """
    known = [name for name, node in plan.nodes.items() if node.gives == "report" and not _readers(plan, name)]
    for gate in gates:
        if gate not in known:
            what = "it is no gate" if gate in plan.nodes else f"no step is called `{gate}`{did_you_mean(gate, known)}"
            raise RecipeError(f"--skip {gate}: {what}; what can be left out: {', '.join(known) or 'nothing'}")
    return withheld(_without(plan, gates), f"{_named(gates)} did not judge it (--skip)", UNCHECKED)


def cheap(plan: Plan) -> Plan:
    """Leave out what measures time, for a build that measures later: nothing is marked."""
    return replace(_without(plan, measuring(plan)), outputs=())


def _without(plan: Plan, gates: Collection[str]) -> Plan:
    """Leave out gates, and predictions and looks that only they read."""
    nodes = {name: node for name, node in plan.nodes.items() if name not in gates}
    while True:
        read = {source for node in nodes.values() for source in node.reads}
        kept = {n: node for n, node in nodes.items() if node.gives not in ("predictions", "decision") or n in read}
        if len(kept) == len(nodes):
            return replace(plan, nodes=nodes)
        nodes = kept


def _readers(plan: Plan, name: str) -> list[str]:
    return [other for other, node in plan.nodes.items() if name in node.needs]


def _named(gates: Sequence[str]) -> str:
    return " and ".join(f"`{gate}`" for gate in gates) if len(gates) < 3 else ", ".join(f"`{gate}`" for gate in gates)
