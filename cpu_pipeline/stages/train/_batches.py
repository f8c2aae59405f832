"""Which targets are learned together, in which order: batches of like length under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

POOL = 64
"""Batches whose targets are sorted by length together: little padding, and still a random order."""


def plan(
    sizes: Sequence[int], *, budget: int, accumulate: int, epochs: float, most: int | None, seed: int
) -> list[list[list[int]]]:
    """List the batches of every step.

    Equal arguments give equal lists, so that a training that was stopped goes on where it was.

    Args:
        sizes: tokens of each target.
        budget: most tokens of a batch, with padding; a larger target is a batch of its own.
        accumulate: batches of a step.
        epochs: how often each target is learned; of a part of an epoch the first batches.
        most: most steps; None for no limit.
        seed: of the order.

    Returns:
        Step -> its batches -> numbers of targets.
    """
    steps: list[list[list[int]]] = []
    epoch = 0
    while epoch < epochs and (most is None or len(steps) < most):
        batches = _epoch(sizes, budget, seed, epoch)
        share = min(1.0, epochs - epoch)
        batches = batches[: max(1, round(share * len(batches)))]
        steps += [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
        epoch += 1
    return steps if most is None else steps[:most]


def _epoch(sizes: Sequence[int], budget: int, seed: int, epoch: int) -> list[list[int]]:
    import numpy as np

    random = np.random.default_rng([seed, epoch])
    order = [int(i) for i in random.permutation(len(sizes))]
    pool = max(1, POOL * budget // max(1, sum(sizes) // max(1, len(sizes))))
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        batches += _cut(sorted(order[start : start + pool], key=lambda i: -sizes[i]), sizes, budget)
    return [batches[int(i)] for i in random.permutation(len(batches))]


def _cut(ordered: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Cut targets, the longest first, into batches whose size with padding fits the budget."""
    batches: list[list[int]] = []
    for number in ordered:
        if batches and (len(batches[-1]) + 1) * sizes[batches[-1][0]] <= budget:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
