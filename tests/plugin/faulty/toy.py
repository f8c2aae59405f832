"""A format of another distribution: its models tell how many of a text's token ids are odd, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import Session
from cpu_pipeline.core.model_io import Head

PACKAGES = ("numpy",)
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32",)
ARCHITECTURES = frozenset({"bert"})
ONLY = False
STATUS = "for tests"


class Odd:
    """Two logits for each text: the shares of even and of odd ids among its real tokens."""

    inputs = ("input_ids", "attention_mask")

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def __call__(self, arrays: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Take int64 of shape (batch, sequence); return float32 `logits` of shape (batch, 2)."""
        import numpy as np

        mask = arrays["attention_mask"]
        odd = (arrays["input_ids"] % 2 * mask).sum(axis=1) / mask.sum(axis=1)
        return {"logits": np.stack([1 - odd, odd + self.shift], axis=1).astype(np.float32)}


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open a model; its marker says how far the second logit is shifted."""
    return Odd(float((path / "marker.txt").read_text(encoding="utf-8")))


def usage(folder: str, head: Head | None) -> str:
    """Write how to load an output."""
    return "from faulty import toy\nsession = toy.load(...)"
