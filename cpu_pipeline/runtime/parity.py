"""Ask two sessions the same questions and measure how far apart their answers are."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.artifact import Facts
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.runtime.batching import pad, pad_id
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.tasks._base import Task

SHAPES = ((1, 6), (2, 17), (3, 40), (1, 128), (4, 64))
"""(batch, longest sequence in tokens): one sequence is as long as that, the others are shorter and padded."""

OFFSET = frozenset(["roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "xmod", "data2vec-text", "mpnet", "esm"])
"""Model types whose first position is pad_token_id + 1."""


def synthetic(model: Path, shapes: Sequence[tuple[int, int]] = SHAPES, seed: int = 0) -> list[list[Feature]]:
    """Draw batches of random tokens that the model in a directory can take, each with its special tokens at the ends.

    Shapes longer than the model's positions are cut; equal arguments give equal batches.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    rng = random.Random(seed)
    first, last = _ends(model, config)
    longest = _positions(config)
    segments = config.get("type_vocab_size", 1) > 1
    batches = []
    for size, wanted in shapes:
        top = max(3, min(wanted, longest))
        lengths = [top, *(rng.randint(3, top) for _ in range(size - 1))]
        rng.shuffle(lengths)
        batches.append([_feature(rng, length, first, last, config["vocab_size"], segments) for length in lengths])
    return batches


def compare(
    candidate: Session, reference: Session, batches: Sequence[Sequence[Feature]], padding: int, per_token: bool
) -> Facts:
    """Run both sessions on the same right-padded batches; padded positions do not count when outputs are per token.

    Returns max_abs and mean_abs (differences in the outputs' own unit, over values that are finite on both sides),
    cosine_min and cosine_mean (per sequence and output), same_top (share of equal arg max: over positions where an
    output has one number per token, otherwise over the last axis), nonfinite (values of either side that are NaN or
    infinite), values (how many were compared) and shapes.
    """
    import numpy as np

    largest, total, finite, broken = 0.0, 0.0, 0, 0
    cosines: list[float] = []
    tops: list[bool] = []
    shapes = []
    for batch in batches:
        ours = candidate(pad(batch, candidate.inputs, padding))
        theirs = reference(pad(batch, reference.inputs, padding))
        shapes.append([len(batch), max(len(f.inputs["input_ids"]) for f in batch)])
        for name, expected in theirs.items():
            if ours[name].shape != expected.shape:
                raise StageFailed(
                    f"{name}: the shape of the answer to a batch of {shapes[-1]} is {list(ours[name].shape)}, "
                    f"not {list(expected.shape)}: the model keeps a shape it was built with"
                )
            for place, feature in enumerate(batch):
                length = len(feature.inputs["input_ids"]) if per_token else None
                a, b = (np.asarray(x[name][place][:length], dtype=np.float64) for x in (ours, theirs))
                known = np.isfinite(a) & np.isfinite(b)
                broken += int(known.size - known.sum())
                gap = np.abs(a[known] - b[known])
                largest = max(largest, float(gap.max(initial=0.0)))
                total, finite = total + float(gap.sum()), finite + gap.size
                cosines.append(_cosine(a[known], b[known]))
                tops.extend(np.atleast_1d(a.argmax(axis=-1) == b.argmax(axis=-1)).tolist())
    return {
        "max_abs": largest,
        "mean_abs": total / max(1, finite),
        "cosine_min": min(cosines, default=1.0),
        "cosine_mean": float(np.mean(cosines)) if cosines else 1.0,
        "same_top": float(np.mean(tops)) if tops else 1.0,
        "nonfinite": broken,
        "values": finite + broken,
        "shapes": shapes,
    }


def parity(candidate: Session, reference: Session, model: Path, task: Task, tolerance: float, where: str) -> Facts:
    """Compare on synthetic batches, at several lengths and with padding, and fail beyond `tolerance` (absolute).

    `model` is a directory with config.json and the tokenizer.

    Raises:
        StageFailed: the answers differ, or are not finite.
    """
    facts = compare(candidate, reference, synthetic(model), pad_id(model), task.per_token)
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
        shapes = ", ".join(f"{size}x{length}" for size, length in facts["shapes"])
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


def _feature(rng: random.Random, length: int, first: int, last: int, vocabulary: int, segments: bool) -> Feature:
    ids = [first, *(rng.randrange(vocabulary) for _ in range(length - 2)), last]
    inputs = {"input_ids": ids, "attention_mask": [1] * length}
    inputs["token_type_ids"] = [int(segments and i > length // 2) for i in range(length)]
    return Feature(row=0, inputs=inputs)


def _ends(model: Path, config: dict[str, Any]) -> tuple[int, int]:
    """Say which tokens the tokenizer puts around a text, or what the configuration says."""
    file = model / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        if ids := tokenizer.encode("").ids:
            return ids[0], ids[-1]
    first = config.get("bos_token_id") or 0
    return first, config.get("eos_token_id") or first


def _positions(config: dict[str, Any]) -> int:
    """Count the tokens a model can take; RoBERTa and its kin number positions from after the padding token."""
    positions = int(config.get("max_position_embeddings", 512))
    offset = (config.get("pad_token_id") or 0) + 1 if str(config.get("model_type")) in OFFSET else 0
    return positions - offset
