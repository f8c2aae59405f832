"""What the accuracy gate remembers: metrics of both sides, bounds of their difference, the same of looks and slices."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from cpu_pipeline.stages._base import Count, Facts, Figure
from cpu_pipeline.stages.validate._gate import Side

Better = Literal["higher", "lower"]


class MetricFacts(Facts):
    """One metric of both sides, as fractions."""

    candidate: Figure
    reference: Figure
    difference: Figure
    """Candidate less reference."""
    low: Figure
    """Lower end of the two-sided interval of the difference."""
    high: Figure
    """Upper end of it."""
    better: Better = "higher"
    """Whether more is better, or less, as of an error."""
    lower: Figure = None
    """One-sided lower bound of the difference, by which the gate judges."""
    upper: Figure = None
    """One-sided upper bound."""
    method: str = ""
    """How the bounds were computed: `tango`, `bca`, `resampled`, or `identical` predictions."""
    deviation: Figure = None
    """Standard deviation of the difference of one row."""
    gained: Count | None = None
    """Rows whose score is higher than the reference's; None where rows have no score of their own."""
    lost: Count | None = None
    """Rows whose score is lower."""


class AnswerCounts(Facts):
    """How many rows of one side were answered how; a task adds counts of its own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Count]

    missing: Count
    """Rows without a prediction."""
    unknown: Count
    """Predictions of no row."""
    nan: Count
    """Predictions that rest on NaN or an infinity."""


class LookFacts(Facts):
    """The bounds of one of several looks, at the level that it may spend."""

    rows: Count
    """Rows that it saw."""
    quantile: float
    """How many standard errors it asks for."""
    metrics: dict[str, MetricFacts]


class SliceFacts(Facts):
    """One slice of the rows."""

    rows: Count
    candidate: Figure
    reference: Figure
    difference: Figure
    """Candidate less reference."""
    deviation: Figure
    """Standard deviation of the difference of one row."""
    lower: list[Figure]
    """One-sided lower bounds of the difference, as Holm's procedure asks: with the whole error, half of it, a third,
    and so on, down to an equal share for each slice."""
    upper: list[Figure]
    """One-sided upper bounds of the same levels."""


class SlicedFacts(Facts):
    """The slices by one property of the rows."""

    metric: str
    better: Better = "higher"
    slices: dict[str, SliceFacts]
    """Name of a slice -> its figures."""


class AccuracyFacts(Facts):
    """Metrics of both sides on the same rows."""

    rows: Count
    """Rows that were compared."""
    metric: str
    """The task's usual metric."""
    confidence: float
    """Level of the intervals and bounds, 0 to 1."""
    metrics: dict[str, MetricFacts]
    """Name of a metric -> its figures, the usual one first."""
    counts: dict[Side, AnswerCounts]
    about: str = ""
    """How the task scored, where that depends on data and model."""
    constant: str = ""
    """The one answer that the reference gives to every row, in words; empty where its answers differ."""
    identical: bool = False
    """Whether both sides' predictions are the same, byte for byte."""
    clusters: Count | None = None
    """Groups of rows that belong together and were drawn together; None where every row stands alone."""
    total: Count | None = None
    """All rows, where looks may have stopped before."""
    looks: list[LookFacts] = Field(default_factory=list)
    """Looks at a part of the rows, where several were planned."""
    sliced: dict[str, SlicedFacts] = Field(default_factory=dict)
    """Property of the rows -> its slices."""
