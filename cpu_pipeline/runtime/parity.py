"""Ask two sessions the same questions and measure how far apart their answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.artifact import Facts
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.runtime.batching import Kinds, call, pad
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.core.model_io import Session
    from cpu_pipeline.tasks._base import Task


def top(output: Any) -> Any:
    """Return the position of the largest value of each vector of an output."""
    return output.argmax(axis=-1)


def compare(
    candidate: Session,
    reference: Session,
    batches: Sequence[Sequence[Feature]],
    kinds: Kinds,
    per_token: bool,
    choice: Callable[[Any], Any] | None = top,
) -> Facts:
    """Run both sessions on the same padded batches; padded positions do not count when outputs are per token.

    `choice` says what an output chooses, as `Task.choice` does; None where outputs choose nothing.

    Returns max_abs and mean_abs (differences in the outputs' own unit, over values that are finite on both sides),
    cosine_min and cosine_mean (per sequence and output), same_top (share of equal choices, by default of the arg max:
    over positions where an output has one number per token, otherwise over the last axis), choices (how many different
    ones the reference made), nonfinite (values of either side that are NaN or infinite), values (how many were
    compared) and shapes (of the first input of each batch, such as [4, 64] tokens). Without `choice`, same_top is None
    and choices 0.
    """
    import numpy as np

    largest, total, finite, broken = 0.0, 0.0, 0, 0
    cosines: list[float] = []
    tops: list[bool] = []
    choices: set[Any] = set()
    shapes = []
    for batch in batches:
        ours = call(candidate, pad(batch, candidate.inputs, kinds))
        arrays = pad(batch, reference.inputs, kinds)
        theirs = call(reference, arrays)
        shapes.append(list(arrays[reference.inputs[0]].shape))
        for name, expected in theirs.items():
            if ours[name].shape != expected.shape:
                raise StageFailed(
                    f"{name}: the shape of the answer to a batch of {shapes[-1]} is {list(ours[name].shape)}, "
                    f"not {list(expected.shape)}: the model keeps a shape it was built with"
                )
            for index, feature in enumerate(batch):
                length = feature.length if per_token else None
                a, b = (np.asarray(x[name][index][:length], dtype=np.float64) for x in (ours, theirs))
                known = np.isfinite(a) & np.isfinite(b)
                broken += int(known.size - known.sum())
                gap = np.abs(a[known] - b[known])
                largest = max(largest, float(gap.max(initial=0.0)))
                total, finite = total + float(gap.sum()), finite + gap.size
                cosines.append(_cosine(a[known], b[known]))
                if choice is not None:
                    ours_top, theirs_top = choice(a), choice(b)
                    tops.extend(np.atleast_1d(ours_top == theirs_top).tolist())
                    choices.update(np.ravel(theirs_top).tolist())
    return {
        "max_abs": largest,
        "mean_abs": total / max(1, finite),
        "cosine_min": min(cosines, default=1.0),
        "cosine_mean": float(np.mean(cosines)) if cosines else 1.0,
        "same_top": None if choice is None else float(np.mean(tops)) if tops else 1.0,
        "choices": len(choices),
        "nonfinite": broken,
        "values": finite + broken,
        "shapes": shapes,
    }


def parity(candidate: Session, reference: Session, model: Path, task: Task, tolerance: float, where: str) -> Facts:
    """Compare on the task's examples, at several sizes and with padding, and fail beyond `tolerance` (absolute).

    `model` is a directory with config.json and the tokenizer or processor.

    Raises:
        StageFailed: the answers differ, or are not finite.
    """
    facts = compare(candidate, reference, task.examples(model), task.input_kinds(model), task.per_token)
    require_parity(facts, tolerance, where)
    return facts


def require_parity(facts: Facts, tolerance: float, where: str) -> None:
    """Fail unless all answers are finite and within `tolerance` (absolute) of the reference.

    Raises:
        StageFailed: they are not; says how far off, on which shapes, and what to try.
    """
    if facts["values"] == 0:
        raise StageFailed(f"{where}: nothing was compared with the original; give it at least one batch")
    if facts["nonfinite"]:
        raise StageFailed(f"{where}: {facts['nonfinite']} of {facts['values']} answers are NaN or infinite")
    if not facts["max_abs"] <= tolerance:
        shapes = ", ".join("x".join(map(str, shape)) for shape in facts["shapes"])
        raise StageFailed(
            f"{where}: answers differ from the original by up to {facts['max_abs']:.3g} (mean {facts['mean_abs']:.3g}, "
            f"same top answer {facts['same_top']:.1%}) where {tolerance:.3g} is allowed, on padded batches of "
            f"{shapes}; try another opset or exporter, or raise `tolerance` if this difference is meant"
        )


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    import numpy as np

    # Not by numpy's norm: its sums are those of a BLAS, and follow the number of threads.
    norms = float(np.sqrt(np.sum(a * a)) * np.sqrt(np.sum(b * b)))
    if norms == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.sum(a * b)) / norms
