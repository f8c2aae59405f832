"""Which rows the candidate of a gate answers worse than its reference, with their texts and both answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core.jsonl import PREDICTIONS, ROWS, read_jsonl
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.failures.data import LostRow
from cpu_pipeline.release.flips import short

MOST = 50
"""Rows that a report holds."""


def lost_rows(built: BuildResult, gate: str) -> tuple[list[LostRow], int, int]:
    """Return the worst rows, how many were lost in all, and how many the gate compared."""
    node = built.plan.nodes[gate]
    losses, compared = node.stage.losses(built.artifacts[gate].path, built.plan.context.task)
    chosen = losses[:MOST]
    rows = _by_id(built.artifacts[node.data["validation"]].path / ROWS) if chosen and "validation" in node.data else {}
    sides = {side: _answers(built, node.inputs.get(side)) for side in ("reference", "candidate")}
    found = [
        LostRow(
            loss,
            short(rows.get(loss, {})),
            short(sides["reference"].get(loss, {})),
            short(sides["candidate"].get(loss, {})),
        )
        for loss in chosen
    ]
    return found, len(losses), compared


def _answers(built: BuildResult, source: str | None) -> Mapping[str, Mapping[str, Any]]:
    if source is None or built.plan.nodes[source].gives != "predictions":
        return {}
    return _by_id(built.artifacts[source].path / PREDICTIONS)


def _by_id(path: Path) -> Mapping[str, Mapping[str, Any]]:
    return {str(line["id"]): line for line in read_jsonl(path)}
