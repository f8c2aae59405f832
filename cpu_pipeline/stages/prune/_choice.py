"""Which heads and neurons stay: the most importance that a budget allows, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BINS = 4000
"""Parts that a budget is divided into."""


@dataclass(frozen=True)
class Group:
    """Heads, or neurons, of one layer: how many may stay, what that costs and loses."""

    counts: Sequence[int]
    """Numbers of units that may stay, ascending."""
    costs: Sequence[float]
    """Cost of each, in the unit of the budget."""
    losses: Sequence[float]
    """Importance that is lost with each."""


def eliminate(fisher: Array) -> list[int]:
    """Order units by taking one after another whose loss, beside those already gone, adds the least.

    The loss of a set is the sum of its block of the Fisher matrix, so that units which do the same count as one: the
    off-diagonal terms of Kwon et al. 2022, https://arxiv.org/abs/2204.09656.

    Args:
        fisher: sums of products of the gradients of the units' masks: (units, units).
    """
    import numpy as np

    fisher = fisher.astype(np.float64)
    adds, left = fisher.diagonal().copy(), np.ones(len(fisher), bool)
    order: list[int] = []
    for _ in range(len(fisher)):
        unit = int(np.argmin(np.where(left, adds, np.inf)))
        left[unit] = False
        adds += 2 * fisher[unit]
        order.append(unit)
    return order


def losses(fisher: Array) -> Array:
    """Sum the diagonal from its least entry up: what is lost with one unit, with two, ...

    Of many units the block's own sum is no measure: on few rows some set always cancels. So the diagonal says how many
    go of each layer, and the block which.

    Args:
        fisher: as above.
    """
    import numpy as np

    return np.cumsum(np.sort(fisher.diagonal().astype(np.float64)))


def choose(groups: Sequence[Group], budget: float) -> list[int] | None:
    """Choose how many units of each group stay: the least loss whose cost is within the budget; None for none.

    Args:
        groups: the groups.
        budget: most cost of all groups together.

    Returns:
        One of each group's `counts`.
    """
    import numpy as np

    unit, last = budget / BINS, BINS + len(groups)
    steps = [[int(np.ceil(cost / unit - 1e-9)) for cost in group.costs] for group in groups]
    best, picked = np.zeros(last + 1), []
    for group, sizes in zip(groups, steps, strict=True):
        table = np.full((len(sizes), last + 1), np.inf)
        for row, (size, loss) in enumerate(zip(sizes, group.losses, strict=True)):
            if size <= last:
                table[row, size:] = best[: last + 1 - size] + loss
        picked.append(table.argmin(axis=0))
        best = table.min(axis=0)
    # Each cost was rounded up by less than a part: what is over by a few parts may be within the budget all the same.
    for room in range(last, BINS - 1, -1):
        if np.isfinite(best[room]):
            rows = _rows_of(steps, picked, room)
            if sum(group.costs[row] for group, row in zip(groups, rows, strict=True)) <= budget * (1 + 1e-9):
                return [int(group.counts[row]) for group, row in zip(groups, rows, strict=True)]
    return None


def _rows_of(steps: Sequence[Sequence[int]], picked: Sequence[Array], room: int) -> list[int]:
    """Follow the choices back from the last group to the first."""
    rows = []
    for sizes, table in zip(reversed(steps), reversed(picked), strict=True):
        row = int(table[room])
        rows.append(row)
        room -= sizes[row]
    return rows[::-1]


@dataclass(frozen=True)
class Prices:
    """What heads and neurons of one layer cost."""

    heads: Callable[[int], float]
    neurons: Callable[[int], float]


def multiply_adds(hidden: int, size: int, length: int) -> Prices:
    """Count the multiply-adds of a token in a layer: projections, attention to `length` tokens, feed-forward."""
    return Prices(lambda heads: heads * size * (4 * hidden + 2 * length), lambda neurons: 2 * hidden * neurons)


def parameters(hidden: int, size: int) -> Prices:
    """Count the weights and biases of a layer that heads and neurons bring."""
    return Prices(lambda heads: heads * size * (4 * hidden + 3), lambda neurons: neurons * (2 * hidden + 1))
