"""Find the step that lost what a gate asks for: judge the steps between reference and candidate by the same gate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cpu_pipeline.core.events import Event
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import NOT_MODELS, Node, Plan
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.failures.data import Trace
from cpu_pipeline.stages._base import Verdict

PATIENCE = 180.0
"""Seconds that a search may take, by what the candidate itself took."""


def trace(built: BuildResult, gate: str, builder: Builder) -> Trace:
    """Find the first step on the way to a gate's candidate whose output the same gate fails.

    Args:
        built: a build without errors in which the gate failed.
        gate: the gate.
        builder: judges further steps, which it caches like any others.
    """
    plan = built.plan
    steps = _way(plan, gate)
    node = plan.nodes[gate]
    if node.stage.alone:
        return Trace(steps, says=f"time is measured of `{steps[-1]}` alone")
    if "candidate" not in node.inputs or "reference" not in node.inputs:
        return Trace(steps, says="the gate has no reference to begin with")
    needed = _seconds(built, gate) * math.ceil(math.log2(len(steps) + 1))
    if len(steps) > 1 and needed > PATIENCE:
        return Trace(steps, says=f"judging the steps between would take about {needed:.0f} s")
    return _Search(plan, gate, builder, steps).find()


def _way(plan: Plan, gate: str) -> list[str]:
    """List the models from behind the gate's reference to its candidate."""
    node = plan.nodes[gate]
    step = _model(plan, node.inputs.get("candidate") or next(iter(node.inputs.values())))
    reference = _model(plan, node.inputs["reference"]) if "reference" in node.inputs else None
    way = [step]
    while step != reference and (before := next(iter(plan.nodes[step].inputs.values()), None)) is not None:
        if before == reference or plan.nodes[before].gives in NOT_MODELS:
            break
        way.insert(0, step := before)
    return way


def _model(plan: Plan, name: str) -> str:
    """Name the model behind the predictions that a gate reads."""
    node = plan.nodes[name]
    return next(iter(node.inputs.values())) if node.gives == "predictions" else name


def _seconds(built: BuildResult, gate: str) -> float:
    """Add up what judging the candidate took."""
    took = (gate, *built.plan.nodes[gate].inputs.values())
    nodes = (name for name in took if built.plan.nodes[name].gives in ("report", "predictions"))
    return sum(float(built.records[name].run.get("seconds", 0.0)) for name in nodes)


@dataclass
class _Search:
    """The work of `trace`."""

    plan: Plan
    gate: str
    builder: Builder
    steps: list[str]

    def __post_init__(self) -> None:
        self.judged: dict[str, str] = {}

    def find(self) -> Trace:
        """Search by halves; what comes before the first step is the reference."""
        good, bad = -1, len(self.steps) - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            passed = self._passes(self.steps[middle])
            if passed is None:
                between = ", ".join(f"`{step}`" for step in self.steps[good + 1 : bad + 1])
                return Trace(self.steps, says=f"one of {between}; a step between can't be judged", judged=self.judged)
            good, bad = (middle, bad) if passed else (good, middle)
        step = self.steps[bad]
        if bad == 0 and self._reference_fails():
            return Trace(
                self.steps, says="the reference itself does not pass the gate", judged=self.judged, reference_fails=True
            )
        before = f"`{self.steps[bad - 1]}` still passes the gate" if bad else "the reference passes the gate"
        return Trace(self.steps, step, f"{before}, `{step}` does not", judged=self.judged)

    def _reference_fails(self) -> bool:
        """Judge the reference as its own candidate, where its predictions are there already."""
        node = self.plan.nodes[self.gate]
        return bool(node.stage.through) and self._passes(_model(self.plan, node.inputs["reference"])) is False

    def _passes(self, step: str) -> bool | None:
        """Judge one step by the gate; None where that can't be done."""
        name = f"{self.gate}@{step}"
        node = self.plan.nodes[self.gate]
        nodes = dict(self.plan.nodes)
        nodes[name] = replace(node, id=name, inputs={**node.inputs, "candidate": self._input(nodes, step)})
        self.builder.tell(Event(self.gate, "tracing", (f"does `{step}` pass?",)))
        built = self.builder.build(replace(self.plan, nodes=nodes).until(name), tell=self._tell)
        if name not in built.verdicts:
            return None
        found = built.verdicts[name]
        self.judged[step] = _says(found)
        return all(verdict.passed for verdict in found)

    def _input(self, nodes: dict[str, Node], step: str) -> str:
        """Name what the gate reads of a step: its artifact, or predictions, which are added to the nodes."""
        gate = self.plan.nodes[self.gate]
        if "candidate" not in gate.stage.through:
            return step
        known = self.plan.nodes[gate.inputs["candidate"]]
        name = f"{known.use}:{step}"
        if name not in nodes:
            nodes[name] = replace(known, id=name, inputs={next(iter(known.inputs)): step})
        return name

    def _tell(self, event: Event) -> None:
        if event.what in ("waiting", "progress", "warning"):
            self.builder.tell(event)


def _says(found: list[Verdict]) -> str:
    failed: Mapping[bool, list[str]] = {kind: [v.says for v in found if v.passed is kind] for kind in (True, False)}
    return "; ".join(failed[False] or failed[True][-1:])
