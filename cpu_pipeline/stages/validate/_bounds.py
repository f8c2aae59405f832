"""Which bounds on a metric no candidate can fail: a gate with such a bound would judge nothing."""

from __future__ import annotations

SMALLEST = 1e-6
"""What a bound must ask for beyond the least that any candidate has; verdicts round by less."""


def cannot_fail(name: str, least: float, max_drop: float | None, at_least: float | None) -> list[str]:
    """Say which bounds cannot fail, each as `option: what is wrong`.

    Args:
        name: a metric of which more is better, and 1 the most.
        least: the least value that it can have.
        max_drop: the drop that is allowed, as a fraction.
        at_least: the least value that is asked.
    """
    found = []
    if max_drop is not None and max_drop >= 1 - SMALLEST:
        # Of a correlation: a reference that is worth comparing with is above 0, so 1 is more than it has to lose.
        found.append(f"max_drop: {max_drop:g} is all of {name} that a reference can have: no candidate fails it")
    if at_least is not None and at_least <= least + SMALLEST:
        found.append(f"at_least: {name} is never less than {least:g}: no candidate fails {at_least:g}")
    return found
