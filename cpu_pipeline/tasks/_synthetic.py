"""Random tokens that a model can take, for comparing and timing models without rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.tasks._feature import SHAPES, Feature
from cpu_pipeline.tasks._settings import UNPADDED, positions, read_config

USUAL = 128
"""Tokens of a sequence whose length is not given."""
LONGEST = 512
"""Tokens of the longest sequence for a model that says no limit."""


def tokens(model: Path, shapes: Sequence[tuple[int, int | None]] = SHAPES, seed: int = 0) -> list[list[Feature]]:
    """Draw batches of random tokens that the model in a directory can take, each with its special tokens at the ends.

    Shapes longer than the model's positions are cut; equal arguments give equal batches. All sequences of a batch are
    of one length for a model that is never padded.

    Args:
        model: The directory with config.json and, for the special tokens, tokenizer.json.
        shapes: (batch, longest sequence in tokens): one sequence is as long as that, the others are 3 tokens or longer.
        seed: Of the random numbers.
    """
    config = read_config(model)
    rng = random.Random(seed)
    first, last = _ends(model, config)
    longest, equal = positions(model) or LONGEST, config.get("model_type") in UNPADDED
    segments = config.get("type_vocab_size", 1) > 1
    batches = []
    for size, wanted in shapes:
        top = max(3, min(wanted or USUAL, longest))
        lengths = [top, *(top if equal else rng.randint(3, top) for _ in range(size - 1))]
        rng.shuffle(lengths)
        batches.append([_feature(rng, length, first, last, config["vocab_size"], segments) for length in lengths])
    return batches


def _feature(rng: random.Random, length: int, first: int, last: int, vocabulary: int, segments: bool) -> Feature:
    ids = [first, *(rng.randrange(vocabulary) for _ in range(length - 2)), last]
    inputs = {"input_ids": ids, "attention_mask": [1] * length}
    inputs["token_type_ids"] = [int(segments and i > length // 2) for i in range(length)]
    return Feature(row=0, inputs=inputs)


def _ends(model: Path, config: dict[str, Any]) -> tuple[int, int]:
    """Find the tokens that the tokenizer puts around a text, or those that the configuration names."""
    file = model / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        if ids := tokenizer.encode("").ids:
            return ids[0], ids[-1]
    first = config.get("bos_token_id") or 0
    return first, config.get("eos_token_id") or first
