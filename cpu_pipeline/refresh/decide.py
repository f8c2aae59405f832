"""Decide what a refresh does with a candidate. Pure: nothing is read, nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.refresh.baseline import MARK
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.stages._base import Verdict

Verdicts = Mapping[str, Sequence[Verdict]]
"""Gate -> its verdicts, against the float model and against the baseline."""


@dataclass(frozen=True)
class Decision:
    """What to do with a candidate, and why."""

    action: Literal["promote", "unchanged", "hold", "refuse"]
    """promote: publish it and put it into service. unchanged: it is in service already, only the lock may be older.
    hold: a rollback took it out of service. refuse: a gate failed."""
    reasons: tuple[str, ...] = ()
    """Of `refuse`: the message of each failed gate. Of `hold`: the version that was taken out of service."""


def decide(verdicts: Verdicts, standing: Standing, candidate: Mapping[str, Any], measured: Collection[str]) -> Decision:
    """Decide what to do with a candidate whose every step succeeded.

    Args:
        verdicts: of every gate.
        standing: what is in service.
        candidate: the manifest of the version that the candidate would be.
        measured: steps whose output depends on how fast this machine was; they make no other version.
    """
    if failures := failed(verdicts):
        return Decision("refuse", tuple(failures))
    if not candidate["outputs"]:  # a recipe that publishes nothing
        return Decision("unchanged")
    if (version := standing.rejected_as(candidate)) is not None:
        return Decision("hold", (version,))
    return Decision("unchanged" if standing.holds(candidate, measured) else "promote")


def failed(verdicts: Verdicts) -> list[str]:
    """List the messages of the gates that failed."""
    return [f"{gate}: {verdict.says}" for gate, found in verdicts.items() for verdict in found if not verdict.passed]


def measured(plan: Plan) -> set[str]:
    """Name the steps of a plan that measure this machine."""
    return {name for name, node in plan.nodes.items() if node.stage.host() == "machine"}


def fails_by_cached_measurement(plan: Plan, verdicts: Verdicts, ran: Collection[str]) -> bool:
    """Say whether a gate that measures this machine failed by what an earlier run measured.

    Args:
        plan: the candidate's.
        verdicts: of every gate.
        ran: steps that ran in this refresh.
    """
    cached = {
        gate for gate, found in verdicts.items() if gate not in ran and not all(verdict.passed for verdict in found)
    }
    return any(gate.removesuffix(MARK) in measured(plan) for gate in cached)
