"""Ask a model for the same rows alone and beside others, and compare what it answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.model_io import reset
from cpu_pipeline.runtime.batching import Kinds, pad
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Task

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Session

SHOWN = 120
"""Characters of an answer that are kept."""


@dataclass(frozen=True)
class Group:
    """One call: numbers of features, of which the first ones count and the others fill the batch."""

    numbers: Sequence[int]
    counted: int
    longest: bool = False
    """Whether it is padded to the length of the longest feature of all."""


@dataclass
class Answers:
    """What was answered to every feature, and to every row."""

    outputs: list[Arrays]
    """Of each feature, without the batch axis and cut to its length."""
    answers: dict[int, str]
    """Row -> its answer, without scores; nothing where an answer is a number or a vector."""
    broken: int
    """Output values that are NaN or infinite."""
    values: int


@dataclass
class Condition:
    """What one condition changed."""

    largest: dict[str, tuple[float, str]]
    """Output -> its largest difference, and the row with it."""
    changed: int
    broken: int
    values: int


@dataclass
class RowFound:
    """One row under all conditions."""

    id: str
    alone: str | None
    """Its answer alone; None where that is no choice."""
    largest: float = 0.0
    changed: dict[str, str] = field(default_factory=dict)
    """Condition -> its other answer."""

    def line(self) -> dict[str, Any]:
        """Return it as a line of JSON; a difference of NaN is null."""
        difference = self.largest if math.isfinite(self.largest) else None
        alone = None if self.alone is None else _short(self.alone)
        return {"id": self.id, "difference": difference, "alone": alone, "changed": self.changed}


def as_rows(features: Sequence[Feature]) -> list[Feature]:
    """Make each feature a row of its own: features that were drawn belong to none."""
    return [replace(feature, row=number) for number, feature in enumerate(features)]


def conditions(features: Sequence[Feature], sizes: Sequence[int], kinds: Kinds) -> dict[str, list[Group]]:
    """Arrange the features in every way that must not change an answer: name of the way -> its calls.

    Features that can't be padded share a batch with others of their own shape alone; where a batch can't be filled,
    features are repeated.
    """
    singles = [Group([number], 1) for number in range(len(features))]
    found = {"alone, again": singles}
    if any(kind.axis is not None and kind.fill is not None for kind in kinds.values()):
        found["alone, padded"] = [replace(group, longest=True) for group in singles]
    for size in sizes:
        for name, mixed in (("like lengths", False), ("mixed lengths", True)):
            groups = [group for same in _alike(features, kinds) for group in _filled(_order(same, mixed), size)]
            found[f"{size}, {name}"] = groups
    return found


def _alike(features: Sequence[Feature], kinds: Kinds) -> list[list[int]]:
    """Group numbers of features that can share a batch, each group from short to long."""
    import numpy as np

    rigid = [name for name, kind in kinds.items() if kind.axis is None or kind.fill is None]
    shapes = [[np.shape(feature.inputs[name]) for name in rigid] for feature in features]
    order = sorted(range(len(features)), key=lambda i: (shapes[i], features[i].length, i))
    return [list(same) for _, same in groupby(order, lambda i: shapes[i])]


def _order(numbers: Sequence[int], mixed: bool) -> list[int]:
    """Keep like beside like, or put the longest beside the shortest."""
    if not mixed:
        return list(numbers)
    half = (len(numbers) + 1) // 2
    short, long = numbers[:half], list(reversed(numbers[half:]))
    pairs = [pair for both in zip(short, long, strict=False) for pair in both]
    return [*pairs, *short[len(long) :]]


def _filled(order: Sequence[int], size: int) -> list[Group]:
    """Cut into batches of exactly `size`; the last one is filled with the features from the beginning."""
    groups = []
    for start in range(0, len(order), size):
        own = list(order[start : start + size])
        others = [number for number in order if number not in own] or own
        fill = [others[i % len(others)] for i in range(size - len(own))]
        groups.append(Group([*own, *fill], len(own)))
    return groups


@dataclass
class Asked:
    """A loaded model and what it is asked."""

    session: Session
    task: Task
    model: Path
    kinds: Kinds
    features: Sequence[Feature]
    chosen: Sequence[Row]
    """The rows that the features belong to; none where these were drawn."""

    @property
    def rows(self) -> list[int]:
        """Return the rows' numbers that have features."""
        return sorted({feature.row for feature in self.features})

    def name(self, row: int) -> str:
        """Return a row's id; its number where the features were drawn."""
        return str(self.chosen[row]["id"]) if self.chosen else str(row)

    def alone(self) -> Answers:
        """Ask every feature by itself, unpadded."""
        return self.under([Group([number], 1) for number in range(len(self.features))])

    def under(self, groups: Sequence[Group]) -> Answers:
        """Ask every feature as these groups say."""
        import numpy as np

        outputs: list[Arrays] = [{}] * len(self.features)
        broken, values = 0, 0
        longest = max(feature.length for feature in self.features)
        for group in groups:
            length = longest if group.longest else None
            arrays = pad([self.features[i] for i in group.numbers], self.session.inputs, self.kinds, length)
            reset(self.session)
            answered = self.task.run(self.session, arrays)
            for index, number in enumerate(group.numbers[: group.counted]):
                cut = self.features[number].length if self.task.per_token else None
                outputs[number] = {name: np.array(value[index][:cut]) for name, value in answered.items()}
                for value in outputs[number].values():
                    values += value.size
                    broken += int(value.size - np.isfinite(value).sum())
        return Answers(outputs, self._decoded(outputs), broken, values)

    def _decoded(self, outputs: Sequence[Arrays]) -> dict[int, str]:
        if not self.chosen:
            return {}
        decoded = self.task.decode(self.chosen, self.features, outputs, self.model)
        found = {row: answer_of(prediction) for row, prediction in enumerate(decoded)}
        return {row: answer for row, answer in found.items() if answer is not None}


def answer_of(prediction: Prediction) -> str | None:
    """Write what a prediction chooses: all of it but its id and its scores; None where nothing is left."""
    chosen = {key: value for key, value in prediction.items() if key not in ("id", "nan") and not _measured(value)}
    if not chosen:
        return None
    return json.dumps(chosen, sort_keys=True, ensure_ascii=False)


def _measured(value: Any) -> bool:
    """Say whether a value is a number with a fraction, or made of such numbers alone; None is a missing number."""
    if isinstance(value, Mapping):
        return all(map(_measured, value.values()))
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_measured, value))
    return value is None or isinstance(value, float)


def compare(
    name: str, alone: Answers, seen: Answers, features: Sequence[Feature], rows: Sequence[RowFound]
) -> Condition:
    """Compare what was answered under a condition with the answers alone; note it in `rows`, too."""
    import numpy as np

    numbers = {row: place for place, row in enumerate(sorted({feature.row for feature in features}))}
    largest: dict[str, tuple[float, str]] = {}
    for feature, before, now in zip(features, alone.outputs, seen.outputs, strict=True):
        found = rows[numbers[feature.row]]
        for output, expected in before.items():
            a, b = (np.asarray(value, dtype=np.float64) for value in (expected, now[output]))
            gap = float(np.abs(a - b).max(initial=0.0)) if a.shape == b.shape else math.inf
            gap = math.inf if math.isnan(gap) else gap
            found.largest = max(found.largest, gap)
            if output not in largest or gap > largest[output][0]:
                largest[output] = (gap, found.id)
    changed = 0
    for row, found in zip(numbers, rows, strict=True):
        if (answer := seen.answers.get(row)) != alone.answers.get(row):
            changed += 1
            found.changed[name] = _short(answer)
    return Condition(largest, changed, seen.broken, seen.values)


def _short(answer: str | None) -> str:
    text = "" if answer is None else answer
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def worst(found: Mapping[str, Condition], outputs: Sequence[Arrays]) -> dict[str, tuple[float, str, str]]:
    """Return output -> its largest difference under any condition, the row, and the condition; the first of equals."""
    names = list(outputs[0]) if outputs else []
    return {
        output: max(
            ((*condition.largest[output], name) for name, condition in found.items()), key=lambda moved: moved[0]
        )
        for output in names
    }
