"""What a model takes and gives: named arrays, the rule by which each is batched, and the head that a task needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]
    """Input or output name -> array; the first axis is the batch."""


@dataclass(frozen=True)
class InputKind:
    """How the values of one input are brought into a batch. Axes are counted without the batch's.

    A value is an array, or a list of integers, of any shape; in a batch all have one shape. `axis` and `fill` say how
    they come to it: token ids and sound differ in length and are padded at the end; images have one size.
    """

    dtype: str = "int64"
    """numpy's name of the type that the model takes."""
    axis: int | None = 0
    """The axis whose size differs between values; None where all values have one shape."""
    fill: float | None = 0
    """What is appended along `axis` in a batch; None where padding would change the answer: such values are batched
    with others of their own size alone."""


TOKENS: Mapping[str, InputKind] = {
    "input_ids": InputKind(),
    "attention_mask": InputKind(),
    "token_type_ids": InputKind(),
}
"""What tokenizers give, in the order in which exported models take it; ids are padded with 0."""


def shapes(arrays: Arrays) -> str:
    """Name the shape of each array of a batch, for messages: `input_ids 2x17, attention_mask 2x17`."""
    return ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in arrays.items())


class Head(Protocol):
    """What a backend must know of a task: which class loads its checkpoint, what goes in, and which outputs it reads.

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

    def input_kinds(self, model: Path) -> Mapping[str, InputKind]:
        """List what the task can feed to the model in a directory, in the order in which exported models take it."""


class Session(Protocol):
    """A loaded model: named arrays in, named arrays out."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Name the inputs the model takes; others are not to be given."""

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch.

        Args:
            arrays: one array for each name in `inputs`, of the type and shape that the task's `InputKind` gives:
                tokens are int64 of shape (batch, sequence), images float32 of shape (batch, channels, height, width),
                sound float32 of shape (batch, samples). The arrays are not written to.

        Returns:
            float32 arrays under the names in `task.outputs`, the batch first; the caller may keep them.

        Raises:
            StageFailed: the model does not take this batch.
        """


@runtime_checkable
class StatefulSession(Session, Protocol):
    """A session that remembers its earlier calls, such as the keys and values of the tokens it has seen.

    Whoever runs a batch calls `reset` below first, so that no answer depends on the
    batches before it. A session without `reset` has no state.
    """

    def reset(self) -> None:
        """Forget every earlier call."""


def reset(session: Session) -> None:
    """Let a session that has state forget its earlier calls."""
    if isinstance(session, StatefulSession):
        session.reset()
