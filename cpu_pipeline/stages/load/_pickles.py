"""Conversion of pickled weights to safetensors, through torch's restricted unpickler, only where a recipe allows it."""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load._configs import read_json

if TYPE_CHECKING:
    import torch

MALFORMED = (
    pickle.UnpicklingError, struct.error, RuntimeError, ValueError, TypeError, AttributeError, LookupError,
    ArithmeticError, EOFError, AssertionError,
)  # fmt: skip
"""What torch's unpickler raises on bytes that are no pickle, or one that does more than hold tensors."""


def convert(folder: Path) -> None:
    """Replace pytorch_model*.bin by one model.safetensors of the same tensors, each stored by itself.

    Tensors that share memory (tied embeddings) are stored once per name: what a loader ties, it ties again.

    Raises:
        RecipeError: a shard is missing.
        StageFailed: a file is not a plain dictionary of tensors.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    shards = _shards(folder)
    for shard in shards:
        tensors |= _read(shard)
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    for path in (*shards, folder / "pytorch_model.bin.index.json"):
        path.unlink(missing_ok=True)


def _shards(folder: Path) -> list[Path]:
    single, index = folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"
    if single.is_file():
        return [single]
    shards = read_json(index).get("weight_map")
    names = sorted({str(shard) for shard in shards.values()}) if isinstance(shards, dict) else []
    for name in names:
        if not re.fullmatch(r"pytorch_model[\w-]*\.bin", name) or not (folder / name).is_file():
            raise RecipeError(f"{index.name}: the shard {name!r} is missing; bring every shard, or fetch it again")
    return [folder / name for name in names]


def _read(path: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MALFORMED as error:
        reason = one_line(error)
        raise StageFailed(f"{path.name}: not a valid file of pickled weights: {reason}") from None
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise StageFailed(f"{path.name}: not a valid file of pickled weights: it is no dictionary of tensors")
    return loaded
