"""What a model is run on once, before it is put into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SHAPES: Sequence[tuple[int, int | None]] = ((1, 6), (2, 17), (3, 40), (1, 128), (4, 64))
"""(batch, length of the longest) of the examples of text on which a built model is compared with the original."""


@dataclass(frozen=True)
class Feature:
    """What a model is run on once: a sequence of tokens, an image, a recording. A row may need several."""

    row: int
    """Index of its row."""
    inputs: Mapping[str, Sequence[int] | np.ndarray[Any, Any]]
    """Input name -> its value without a batch axis, unpadded: lists of integers (input_ids, attention_mask,
    token_type_ids: all of one length) or arrays of any shape, of the types that `Task.input_kinds` gives."""
    extra: Any = None
    """What `decode` needs besides: offsets, word numbers."""

    @property
    def length(self) -> int:
        """Count its first input along the first axis: tokens, samples of sound."""
        return len(next(iter(self.inputs.values())))
