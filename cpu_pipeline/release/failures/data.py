"""What the report of a failed build shows, as plain values: no Markdown, nothing escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
"""Format of the JSON file; raised when a reader of the format before would misread it."""


@dataclass(frozen=True)
class FailedCheck:
    """One check that failed."""

    check: str
    """What was compared, such as `f1`."""
    says: str
    """The number, its reference and the bound."""
    value: float | None
    """The number that was judged; None when there is none."""
    bound: float | None
    """Its bound."""
    outcome: str
    """`fail`, or `inconclusive` where the rows are too few to tell."""
    by: float | None
    """How far the number is beyond the bound, in its own unit; None where one of the two is missing."""


@dataclass(frozen=True)
class Trace:
    """Where on the way from the reference to the candidate a check began to fail."""

    steps: Sequence[str]
    """The steps that made the candidate, in order; the candidate is the last."""
    step: str | None = None
    """The step that lost it; None where that is not known."""
    says: str = ""
    """How that is known, or why it is not."""
    reference_fails: bool = False
    """Whether the reference itself does not pass the gate: no step lost it."""
    judged: Mapping[str, str] = field(default_factory=dict)
    """Step that was judged by the same gate -> what the gate says of it."""


@dataclass(frozen=True)
class LostRow:
    """A row that the candidate answers worse than the reference."""

    id: str
    row: Mapping[str, Any]
    """What the row says: its columns; long texts are cut."""
    reference: Mapping[str, Any]
    """The reference's answer."""
    candidate: Mapping[str, Any]
    """The candidate's answer."""


@dataclass(frozen=True)
class Advice:
    """An option to try next."""

    step: str
    option: str
    now: Any
    """Its value in this build."""
    about: str
    """Its documentation."""


@dataclass(frozen=True)
class FailedGate:
    """One gate that failed."""

    gate: str
    use: str
    """Its stage."""
    candidate: str
    """The step whose output it judged."""
    checks: Sequence[FailedCheck]
    trace: Trace
    rows: Sequence[LostRow]
    """The first of the rows that were lost, the worst first."""
    lost: int
    """How many were lost in all."""
    of: int
    """Rows that were compared; 0 where the gate compares none."""
    advice: Sequence[Advice]
    won_rows: Sequence[LostRow] = ()
    """The first of the rows that the candidate answers better, those that gained most first."""
    won: int = 0
    """How many were won in all."""


@dataclass(frozen=True)
class Failure:
    """A build whose every step succeeded, and some gate failed."""

    name: str
    run: str
    """Id of the run."""
    gates: Sequence[FailedGate]
    in_service: str | None
    """The version that stays in service; None when there is none."""
    withheld: Sequence[str] = ()
    """Why it would not have been put into service anyhow."""
