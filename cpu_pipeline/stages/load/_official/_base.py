"""What a module of this folder gives, and how numbers are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row, Task

TOLERANCE = 1e-3
"""How far numbers may be apart: batches and other kernels round otherwise, a fault is far larger."""


@dataclass(frozen=True)
class Asked:
    """What the official model is run on once; a row may need several."""

    row: int
    """Index of its row."""
    inputs: Mapping[str, Any]
    """Input name -> its value without a batch axis, as the tokenizer or processor gives it."""
    extra: Any = None
    """What `judge` needs besides."""


class Official(Protocol):
    """A module of this folder, named as its task."""

    def encode(self, task: Task, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
        """Make the official inputs of rows, in the order of the task's own features.

        Args:
            task: the task with its options.
            rows: the rows.
            original: the model's directory as it was fetched.
            built: the directory that `load.model` made of it, for lengths and other options that the task reads there.
        """

    def judge(
        self, task: Task, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
    ) -> str | None:
        """Say how our answer to a row differs from the official one; None where it does not.

        Args:
            task: the task with its options.
            row: the row.
            asked: what the official model was run on for it.
            outputs: the official model's outputs, one for each of `asked`.
            answer: our prediction.
            config: the official model's configuration.
        """


def close(ours: Any, official: Any) -> bool:
    """Say whether two arrays are equal within `TOLERANCE` of the largest number, not finite ones at the same places."""
    import numpy as np

    ours, official = np.asarray(ours, np.float64), np.asarray(official, np.float64)
    if ours.shape != official.shape:
        return False
    finite = official[np.isfinite(official)]
    bound = TOLERANCE * max(1.0, float(np.abs(finite).max(initial=0.0)))
    return bool(np.allclose(ours, official, rtol=0.0, atol=bound, equal_nan=True))


def furthest(ours: np.ndarray[Any, Any], official: np.ndarray[Any, Any]) -> str:
    """Say how far two arrays are apart."""
    import numpy as np

    if ours.shape != official.shape:
        return f"of shape {list(ours.shape)}, and {list(official.shape)} with transformers"
    gap = np.abs(ours.astype(np.float64) - official.astype(np.float64))
    place = np.unravel_index(int(np.argmax(np.nan_to_num(gap, nan=np.inf))), gap.shape)
    return f"{float(ours[place]):.5g}, and {float(official[place]):.5g} with transformers"
