"""A transformers model as exporters take it: named inputs, the task's outputs alone, and an example batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from cpu_pipeline.backends import hf

SHAPE = (3, 9)
"""(batch, sequence) of the example: sizes of 0 and 1 broadcast, and a trace could take them for constants."""
LENGTHS = (9, 6, 4)
"""Real tokens of each row: a trace of an example without padding may leave the mask out."""
RECORDED_MODULE = "cpu_pipeline.stages._trace"
"""Module that TorchScript names as the wrapper's: part of the bytes of every traced model, wherever the code is now."""
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)
"""What tracing raises where a model does something that a trace cannot hold."""


def example(module: Any, names: Sequence[str]) -> dict[str, Any]:
    """Make a small padded batch that the model can take.

    Each row has one end token, the last before the padding: some heads (BART's) look for it.

    Args:
        module: a transformers model; its configuration names padding, end token and size of the vocabulary.
        names: inputs that it takes, of `model_io.TOKENS`.

    Returns:
        Name -> int64 tensor of shape `SHAPE` (batch, sequence), right-padded to `LENGTHS`.
    """
    import torch

    rows, length = SHAPE
    padding, end, vocabulary = (
        getattr(module.config, name, None) for name in ("pad_token_id", "eos_token_id", "vocab_size")
    )
    lengths = torch.tensor(LENGTHS)[:, None]
    positions = torch.arange(length)
    real = positions < lengths
    ids = (torch.arange(rows * length).reshape(rows, length) + 3) % int(vocabulary or 2)
    if isinstance(end, int) and 0 <= end < int(vocabulary or 2):
        ids = torch.where(positions == lengths - 1, end, ids)
    batch = {
        "input_ids": torch.where(real, ids, padding if isinstance(padding, int) else 0),
        "attention_mask": real.long(),
        "token_type_ids": (real & (positions > 2)).long(),
    }
    return {name: batch[name] for name in names}


def with_names(module: Any, names: Sequence[str], outputs: tuple[str, ...]) -> Any:
    """Wrap a transformers model into a module that takes `names` alone and gives the task's outputs alone.

    Args:
        module: what `hf.checkpoint` returned, or a module with the same keyword arguments.
        names: its inputs, as `hf.inputs_of` lists them: token ids are int64 tensors of shape (batch, sequence), others
            as the task makes them; floats are cast to the type of the weights.
        outputs: what the task reads; the order of the tuple that the wrapper returns.

    Returns:
        A torch module in eval mode whose outputs are float32, whatever type the weights have.
    """
    import torch

    def cast(value: Any) -> Any:
        """Bring floats, such as pixels, to the type of the weights; leave no trace of it where they have it."""
        return value.to(module.dtype) if value.is_floating_point() and value.dtype != module.dtype else value

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, **arrays: Any) -> tuple[Any, ...]:
            answers = hf.outputs_of(self.model(**{n: cast(v) for n, v in arrays.items()}), outputs).values()
            # Not `.float()` on all: the trace would note it where there is nothing to do.
            return tuple(answer if answer.dtype == torch.float32 else answer.float() for answer in answers)

    Named.__module__ = RECORDED_MODULE
    # The tracer names the graph's inputs after these.
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, keyword) for name in ("self", *names)]
    Named.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # the tracer reads it; mypy knows none on functions
    return Named().eval()
