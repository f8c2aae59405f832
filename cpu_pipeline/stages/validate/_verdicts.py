"""Judge by bounds whether a candidate keeps to an allowed drop: it does, it does not, or the rows are too few."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from cpu_pipeline.core.figures import number
from cpu_pipeline.runtime import rows_needed
from cpu_pipeline.stages._base import Outcome, Verdict
from cpu_pipeline.stages.validate._accuracy_facts import AccuracyFacts, AnswerCounts, Better, SlicedFacts, SliceFacts
from cpu_pipeline.stages.validate._gate import SIDES, Side
from cpu_pipeline.stages.validate._slices import Slices

ROUNDING = 1e-9
"""What sums of fractions may be off by: a bound of exactly max_drop passes."""
DIGITS = 4
"""Decimals of a metric."""
POWER = 0.8
"""How often the rows that a message names decide."""


@dataclass(frozen=True)
class Difference:
    """A difference as it is judged, turned so that more is better."""

    value: float
    lower: float
    upper: float
    deviation: float | None = None
    """Standard deviation of one row."""

    @classmethod
    def of(
        cls, value: float | None, lower: float | None, upper: float | None, better: Better, deviation: float | None
    ) -> Difference | None:
        """Turn a measured difference; None where a number is missing."""
        if value is None or lower is None or upper is None:
            return None
        if better == "lower":
            value, lower, upper = -value, -upper, -lower
        return cls(value, lower, upper, deviation)

    def outcome(self, drop: float, *, by_estimate: bool) -> Outcome:
        """Judge.

        Args:
            drop: how much worse the candidate may be.
            by_estimate: whether an estimate beyond it fails, though the bounds leave it open.
        """
        if self.lower >= -drop - ROUNDING:
            return "pass"
        if self.upper < -drop - ROUNDING or (by_estimate and self.value < -drop - ROUNDING):
            return "fail"
        return "inconclusive"

    def decided_by(self, drop: float, confidence: float) -> int | None:
        """Return about how many rows would decide, if the difference stays as it is; None for more than anyone has."""
        room = abs(self.value + drop)
        if not room or self.deviation is None:
            return None
        z = NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(POWER)
        rows = max((z * self.deviation / room) ** 2, rows_needed.none_flipped(drop, confidence) if drop else 0.0)
        return math.ceil(rows) if rows <= rows_needed.MOST else None


def shown(value: float | None) -> str:
    """Write a metric."""
    return number(value, DIGITS)


def bound_text(found: Difference, outcome: Outcome, better: Better, confidence: float) -> str:
    """Write a difference with the bound that decides: the upper one where even that is beyond, else the lower one."""
    end, word = (found.upper, "at most") if outcome == "fail" and found.upper < 0 else (found.lower, "at least")
    if better == "higher":
        return f"difference {found.value:+.4f}, with {confidence:.0%} confidence {word} {end:+.4f}"
    word = "at most" if word == "at least" else "at least"
    return f"difference {-found.value:+.4f}, with {confidence:.0%} confidence {word} {-end:+.4f}"


def rows_text(found: Difference, drop: float, confidence: float, rows: int) -> str:
    """Say how many rows would decide."""
    needed = found.decided_by(drop, confidence)
    if needed is None:
        return f"no number of rows that anyone has would decide it ({rows:,} now)"
    return f"about {_rounded(max(needed, rows + 1)):,} rows would decide it ({rows:,} now)"


def _rounded(rows: int) -> int:
    """Round up to two digits: what the sample tells is not more exact."""
    unit = int(10 ** max(0, len(str(rows)) - 2))
    return -(-rows // unit) * unit


def kept_by_holm(bounds: Sequence[Sequence[bool]]) -> list[bool]:
    """Return which of several claims hold together, by Holm's procedure (1979).

    Args:
        bounds: for each claim, whether it holds with the whole error, with half of it, with a third, ...

    Returns:
        For each claim, whether it is shown, so that the chance of any wrong one stays within the whole error.
    """
    reached = [next((level for level, holds in enumerate(one) if not holds), len(one)) for one in bounds]
    order = sorted(range(len(bounds)), key=lambda i: -reached[i])
    kept = [False] * len(bounds)
    for place, claim in enumerate(order):
        if reached[claim] < len(bounds) - place:
            break
        kept[claim] = True
    return kept


@dataclass(frozen=True)
class JudgedSlice:
    """What the rows show of one slice."""

    name: str
    facts: SliceFacts
    outcome: Outcome
    drop: float
    """The allowed drop, as a difference."""
    why: str = ""
    """Why it is inconclusive, where that is not its bounds."""

    def gain(self, better: Better) -> float:
        """Return by how much the candidate is better than what is allowed."""
        value = self.facts.difference
        return -math.inf if value is None else (value if better == "higher" else -value) + self.drop


def judge_slices(
    found: SlicedFacts, asked: Slices, usual: float | None, *, relative: bool, by_estimate: bool
) -> list[JudgedSlice]:
    """Judge the slices by one property together; the worst comes first.

    Args:
        found: their figures.
        asked: what is asked of them.
        usual: the allowed drop of those that have none.
        relative: whether drops are shares of the reference's metric.
        by_estimate: whether an estimate beyond the allowed drop fails.
    """
    drops: dict[str, tuple[float, int]] = {}
    for name, one in found.slices.items():
        drop, fewest = asked.limits(name, usual)
        drops[name] = (drop or 0.0) * (abs(one.reference or 0.0) if relative else 1.0), fewest
    large = {n: f for n, f in found.slices.items() if f.rows >= drops[n][1] and _difference(f, 0, found.better)}
    sides = {n: list(_levels(f, found.better)) for n, f in large.items()}
    passed = dict(zip(large, kept_by_holm([_above(sides[n], drops[n][0]) for n in large]), strict=True))
    failed = dict(zip(large, kept_by_holm([_below(sides[n], drops[n][0]) for n in large]), strict=True))
    judged = []
    for name, one in found.slices.items():
        drop, fewest = drops[name]
        outcome: Outcome = "inconclusive"
        why = ""
        if name not in large:
            why = f"{one.rows} rows, at least {fewest} asked" if one.rows < fewest else "the metric is not defined"
        elif passed[name]:
            outcome = "pass"
        elif failed[name] or (by_estimate and sides[name][0].value < -drop - ROUNDING):
            outcome = "fail"
        judged.append(JudgedSlice(name, one, outcome, drop, why))
    ranks = {"fail": 0, "inconclusive": 1, "pass": 2}
    return sorted(judged, key=lambda one: (ranks[one.outcome], one.gain(found.better)))


def _difference(found: SliceFacts, level: int, better: Better) -> Difference | None:
    if level >= len(found.lower):
        return None
    return Difference.of(found.difference, found.lower[level], found.upper[level], better, found.deviation)


def _levels(found: SliceFacts, better: Better) -> Iterator[Difference]:
    for level in range(len(found.lower)):
        one = _difference(found, level, better)
        if one is not None:
            yield one


def _above(levels: Sequence[Difference], drop: float) -> list[bool]:
    return [one.lower >= -drop - ROUNDING for one in levels]


def _below(levels: Sequence[Difference], drop: float) -> list[bool]:
    return [one.upper < -drop - ROUNDING for one in levels]


def slices_verdict(
    found: SlicedFacts, judged: Sequence[JudgedSlice], name: str, confidence: float, *, lets_pass: bool
) -> Verdict:
    """Write one verdict of all slices by a property; it names the worst.

    Args:
        found: their figures.
        judged: each of them, the worst first.
        name: the property.
        confidence: level of all of them together.
        lets_pass: whether what is inconclusive passes, with a warning.
    """
    worst = judged[0]
    counts: Mapping[Outcome, int] = {
        outcome: sum(one.outcome == outcome for one in judged) for outcome in ("pass", "fail", "inconclusive")
    }
    outcome: Outcome = next((o for o in ("fail", "inconclusive") if counts[o]), "pass")
    one = worst.facts
    level = _difference(one, 0, found.better)
    about = worst.why or (bound_text(level, worst.outcome, found.better, confidence) if level else "")
    change = "drop" if found.better == "higher" else "rise"
    rest = "; ".join(f"{count} {what}" for what, count in counts.items() if count)
    more = ""
    if worst.outcome == "inconclusive" and not worst.why and level is not None:
        more = f"; {rows_text(level, worst.drop, confidence, one.rows)}"
    says = (
        f"worst of {len(judged)} slices by {name}: {worst.name} ({one.rows} rows), {found.metric} "
        f"{shown(one.candidate)}, reference {shown(one.reference)}: {about}, a {change} of {shown(worst.drop)} is "
        f"allowed{more} (of all slices: {rest})"
    )
    if outcome == "inconclusive":
        says = f"inconclusive: {says}"
    passed = outcome == "pass" or (outcome == "inconclusive" and lets_pass)
    value = None if level is None else -level.lower
    return Verdict(f"{found.metric} by {name}", passed, says, value, worst.drop, outcome, outcome != "pass" and passed)


def undefined(name: str, ours: float | None, theirs: float | None) -> Verdict:
    """Fail a metric that is not defined, and say why that is."""
    sides = " and ".join(side for side, value in zip(SIDES, (ours, theirs), strict=True) if value is None)
    return Verdict(
        name,
        False,
        f"{name} is NaN: candidate {shown(ours)}, reference {shown(theirs)}; it is not defined where answers never "
        f"vary or are missing: look at the predictions of the {sides}",
    )


def constant(facts: AccuracyFacts) -> Verdict:
    return Verdict(
        "constant",
        False,
        f"the reference gives {facts.constant} to all {facts.rows} rows: comparing with it shows nothing; "
        "look at the reference, the task's options and the rows, or compare with another reference",
    )


def published(source: str | None) -> str:
    return f" (published: {source})" if source else ""


def at_least(name: str, value: float | None, bound: float, source: str | None) -> Verdict:
    if value is None:
        return undefined(name, value, 0.0)
    passed = value >= bound - ROUNDING
    return Verdict(
        name, passed, f"{name} {shown(value)}, at least {shown(bound)} asked{published(source)}", value, bound
    )


def at_most(name: str, value: float | None, bound: float, source: str | None) -> Verdict:
    if value is None:
        return undefined(name, value, 0.0)
    passed = value <= bound + ROUNDING
    return Verdict(
        name, passed, f"{name} {shown(value)}, at most {shown(bound)} asked{published(source)}", value, bound
    )


def complete(counts: Mapping[Side, AnswerCounts], rows: int) -> Verdict:
    """Fail unless every row has one finite prediction on both sides."""
    wrong = [
        f"{side}: {number_of} {meaning}"
        for side, count in counts.items()
        for number_of, meaning in (
            (count.missing, "rows unanswered"),
            (count.unknown, "answers of no row"),
            (count.nan, "answers of NaN"),
        )
        if number_of
    ]
    if not rows:
        wrong.append("there are no rows")
    return Verdict("answers", not wrong, "; ".join(wrong) or f"{rows} rows answered by both sides, all finite")
