"""Find what never varies: no metric over a constant tells a good model from one that always says the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def constants(what: str, gold: Iterable[Any], answers: Iterable[Any]) -> dict[str, str]:
    """Say which of both sides of a comparison has one value alone, for `Score.constant`.

    Args:
        what: what the values are, such as `label`.
        gold: the value of each row; a list counts as one value.
        answers: the answer to each row; None where there is none, which does not count.

    Returns:
        `rows` and `answers` -> the value with its kind, such as `label 1`; nothing for a side that varies, or that has
        fewer than two values.
    """
    sides = {"rows": list(gold), "answers": [answer for answer in answers if answer is not None]}
    found = {}
    for side, values in sides.items():
        if len(values) > 1 and all(value == values[0] for value in values[1:]):
            found[side] = f"{what} {_written(values[0])}"
    return found


def _written(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
