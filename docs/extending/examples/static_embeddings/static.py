"""Run static embeddings with numpy: one vector per token, the same in every text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import StageFailed

if TYPE_CHECKING:
    from cpu_pipeline.backends import Session
    from cpu_pipeline.core.model_io import Arrays, Head

PACKAGES = ("numpy",)
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32",)
ARCHITECTURES = frozenset({"bert"})
ONLY = True
STATUS = "an example of the documentation"


class Lookup:
    """A table of vectors: float32 of shape (vocabulary, size)."""

    inputs = ("input_ids",)

    def __init__(self, table: Any) -> None:
        self._table = table

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Return `last_hidden_state`: float32 of shape (batch, sequence, size), for int64 `input_ids`."""
        return {"last_hidden_state": self._table[arrays["input_ids"]]}


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open the table in the directory `path`.

    Raises:
        StageFailed: there is no such table, or the task needs another output.
    """
    import numpy as np

    if head and tuple(head.outputs) != ("last_hidden_state",):
        raise StageFailed(f"{path}: a static model gives last_hidden_state, the task reads {', '.join(head.outputs)}")
    try:
        return Lookup(np.load(path / "embeddings.npy", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise StageFailed(f"{path}: not a valid static model: {error}") from error


def usage(folder: str, head: Head | None) -> str:
    """Write the lines of Python that load an output, for the report."""
    return f"""import numpy as np
from tokenizers import Tokenizer

table = np.load("{folder}/embeddings.npy")
ids = Tokenizer.from_file("{folder}/tokenizer.json").encode("A text").ids
vector = table[ids].mean(axis=0)"""
