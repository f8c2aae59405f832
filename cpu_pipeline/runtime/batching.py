"""Features in, padded batches out, answers back in order; the same batches on every run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.core.model_io import Arrays

PADDING = {"attention_mask": 0, "token_type_ids": 0}


def pad_id(model: Path) -> int:
    """Read the padding token's id from a model directory's config.json; 0 where it names none."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    said = config.get("pad_token_id")
    return said if isinstance(said, int) and said >= 0 else 0


def pad(features: Sequence[Feature], names: Sequence[str], padding: int, length: int | None = None) -> Arrays:
    """Stack features on the right-padded batch axis: int64 arrays of shape (len(features), longest or `length`)."""
    import numpy as np

    width = length or max(len(f.inputs["input_ids"]) for f in features)
    arrays = {}
    for name in names:
        array = np.full((len(features), width), PADDING.get(name, padding), dtype=np.int64)
        for i, feature in enumerate(features):
            ids = feature.inputs.get(name) or [0] * len(feature.inputs["input_ids"])
            array[i, : len(ids)] = ids
        arrays[name] = array
    return arrays


def batches(features: Sequence[Feature], size: int) -> Iterator[list[int]]:
    """Group feature numbers by length, longest first (memory peaks at once), `size` at a time."""
    order = sorted(range(len(features)), key=lambda i: (-len(features[i].inputs["input_ids"]), i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def answer(session: Session, features: Sequence[Feature], padding: int, size: int, per_token: bool) -> list[Arrays]:
    """Run every feature; return each one's outputs without the batch axis, cut to its own length when `per_token`."""
    answers: list[Arrays] = [{}] * len(features)
    for numbers in batches(features, size):
        arrays = pad([features[i] for i in numbers], session.inputs, padding)
        outputs = session(arrays)
        for place, number in enumerate(numbers):
            length = len(features[number].inputs["input_ids"]) if per_token else None
            answers[number] = {name: value[place][:length] for name, value in outputs.items()}
    return answers
