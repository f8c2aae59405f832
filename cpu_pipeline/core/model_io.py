"""What a model takes and gives: named arrays, and the head that a task needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]
    """Input or output name -> array; the first axis is the batch."""


class Head(Protocol):
    """What a backend must know of a task: which class loads its checkpoint, and which outputs it reads.

    Every `Task` has these; a backend needs no more of it.
    """

    @property
    def auto_class(self) -> str:
        """Name transformers' class that loads a checkpoint with this head."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name the model's outputs, in order."""

    @property
    def per_token(self) -> bool:
        """Say whether outputs have a value (or a vector) for each token: shape (batch, sequence, ...)."""
