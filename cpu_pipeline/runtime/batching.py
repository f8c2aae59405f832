"""Features in, padded batches out, answers back in order; the same batches on every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import InputKind, reset
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Session
    from cpu_pipeline.tasks._base import Task

Kinds = Mapping[str, InputKind]
"""Input name -> how its values come to one shape, as `Task.input_kinds` gives them for a model."""


Example = tuple["Arrays", dict[str, dict[int, str]]]
"""A batch to trace a model with, and for each input its axes that differ between calls -> `batch` or `length`."""


def pad(features: Sequence[Feature], names: Sequence[str], kinds: Kinds, length: int | None = None) -> Arrays:
    """Stack the features' values of each input into one array, padded at the end where the kind of input allows it.

    Args:
        features: What to stack, one for each entry of the batch.
        names: The inputs to make, usually `session.inputs`.
        kinds: The rule for each: type, the axis that is padded and what with. Token ids are padded with the
            tokenizer's padding id, masks with 0, sound with 0.0; images are stacked as they are.
        length: Size of each padded axis; the batch's longest unless given.

    Returns:
        For each name an array of shape (len(features), ...), of the kind's type: tokens int64 of shape
        (batch, sequence).

    Raises:
        StageFailed: the model takes an input that the task does not give, or values differ in shape and the kind of
            input is never padded.
    """
    if strange := [name for name in names if name not in kinds or any(name not in f.inputs for f in features)]:
        raise StageFailed(f"the model takes {strange[0]}, and the task gives {', '.join(kinds)} alone")
    return {name: _stack(name, [f.inputs[name] for f in features], kinds[name], length) for name in names}


def _stack(name: str, values: Sequence[Any], kind: InputKind, length: int | None) -> Any:
    import numpy as np

    arrays = [np.asarray(value, dtype=kind.dtype) for value in values]
    shape = list(arrays[0].shape)
    padded = kind.axis if kind.fill is not None else None
    if padded is not None:
        shape[padded] = length or max(array.shape[padded] for array in arrays)
    fixed = tuple(n for axis, n in enumerate(shape) if axis != padded)
    stacked = np.full((len(arrays), *shape), kind.fill or 0, dtype=kind.dtype)
    for i, array in enumerate(arrays):
        if tuple(n for axis, n in enumerate(array.shape) if axis != padded) != fixed:
            raise StageFailed(f"{name}: {list(array.shape)} and {shape} do not fit into one batch")
        stacked[i][tuple(slice(size) for size in array.shape)] = array
    return stacked


def batches(features: Sequence[Feature], size: int, kinds: Kinds) -> Iterator[list[int]]:
    """Group feature numbers by length, longest first (memory peaks at once), `size` at a time.

    Where a kind of input is never padded, only features of equal shapes share a batch.
    """
    import numpy as np

    rigid = [name for name, kind in kinds.items() if kind.axis is None or kind.fill is None]
    order = sorted(range(len(features)), key=lambda i: (-features[i].length, i))
    for _, same in groupby(order, lambda i: [np.shape(features[i].inputs[name]) for name in rigid]):
        numbers = list(same)
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]


def extent(feature: Feature, kinds: Kinds) -> int:
    """Count what differs in size from feature to feature: tokens, samples; 1 where all inputs have one shape."""
    import numpy as np

    sizes = [np.shape(feature.inputs[name])[kind.axis] for name, kind in kinds.items() if kind.axis is not None]
    return int(sizes[0]) if sizes else 1


def width(arrays: Arrays, kinds: Kinds) -> int:
    """Count the same of a padded batch: tokens or samples of its longest; 1 where all inputs have one shape."""
    sizes = [arrays[name].shape[kind.axis + 1] for name, kind in kinds.items() if kind.axis is not None]
    return int(sizes[0]) if sizes else 1


def grouped(features: Sequence[Feature], size: int, kinds: Kinds) -> list[list[Feature]]:
    """Group features in their own order, `size` at a time, where they can be padded; else as `batches` does."""
    if all(kind.axis is None or kind.fill is not None for kind in kinds.values()):
        return [list(features[i : i + size]) for i in range(0, len(features), size)]
    return [[features[i] for i in numbers] for numbers in batches(features, size, kinds)]


def call(session: Session, arrays: Arrays) -> Arrays:
    """Run one batch, after resetting a session that has state."""
    reset(session)
    return session(arrays)


def answer(
    session: Session,
    features: Sequence[Feature],
    task: Task,
    kinds: Kinds,
    size: int,
    told: Callable[[int], None] = lambda _: None,
) -> list[Arrays]:
    """Run every feature, in batches of `size`, as the task runs a batch: `Task.run` calls the session, once or often.

    Args:
        session: the model.
        features: what it answers.
        task: runs a batch.
        kinds: how the inputs come to one shape.
        size: features in a batch.
        told: called after each batch with the number of features that are answered.

    Returns:
        Each feature's outputs, in the order of the features and without the batch axis: of shape (length, ...), cut
        to the feature's own length, where the task's outputs are per token.
    """
    answers: list[Arrays] = [{}] * len(features)
    done = 0
    for numbers in batches(features, size, kinds):
        reset(session)
        outputs = task.run(session, pad([features[i] for i in numbers], session.inputs, kinds))
        for index, number in enumerate(numbers):
            length = features[number].length if task.per_token else None
            answers[number] = {name: value[index][:length] for name, value in outputs.items()}
        done += len(numbers)
        told(done)
    return answers


def example(task: Task, model: Path, names: Sequence[str]) -> Example:
    """Build a batch to trace the model in a directory with: two of the task's examples.

    A batch of one would not do: sizes of 0 and 1 broadcast, and a trace takes them for constants.
    """
    kinds = task.input_kinds(model)
    [features] = task.examples(model, [(2, None)])
    axes = {name: {0: "batch"} for name in names}
    for name in names:
        if (axis := kinds[name].axis) is not None:
            axes[name][axis + 1] = "length"
    return pad(features, names, kinds), axes
