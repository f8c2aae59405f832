"""Conversion of pickled weights to safetensors, through torch's restricted unpickler, only where a recipe allows it."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load._configs import read_json

if TYPE_CHECKING:
    import torch

MALFORMED = (
    pickle.UnpicklingError, struct.error, RuntimeError, ValueError, TypeError, AttributeError, LookupError,
    ArithmeticError, EOFError, AssertionError,
)  # fmt: skip
"""What torch's unpickler raises on bytes that are no pickle, or one that does more than hold tensors."""

SPREAD = 8
"""How many times the bytes of the files the tensors may have: views share what is stored, and are written whole."""
NAMED = re.compile(r"(?:GLOBAL|global) `?([\w.]+)")
"""How torch names what a pickle would call."""


def convert(folder: Path) -> None:
    """Replace pytorch_model*.bin by one model.safetensors of the same tensors, each stored by itself.

    Tensors that share memory (tied embeddings) are stored once per name: what a loader ties, it ties again.

    Raises:
        RecipeError: a shard is missing.
        Refused: a pickle would run code.
        StageFailed: a file is not a plain dictionary of tensors, or they take far more than its bytes.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    shards = _shards(folder)
    for shard in shards:
        tensors |= _read(shard)
    size, stored = sum(t.numel() * t.element_size() for t in tensors.values()), sum(p.stat().st_size for p in shards)
    if size > SPREAD * stored:
        raise StageFailed(
            f"{shards[0].name}: not a valid file of pickled weights: its tensors take {size:,} bytes, the files "
            f"{stored:,}; fetch the model again"
        )
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

    _refuse_packed(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MALFORMED as error:
        reason = one_line(error)
        if isinstance(error, pickle.UnpicklingError) and (named := NAMED.search(str(error))):
            raise Refused(
                f"{path.name}: its pickle calls {named[1]}, and weights are tensors alone; nothing of it was run: "
                "choose a revision with model.safetensors"
            ) from None
        if reason.startswith("Weights only load failed"):  # torch goes on to advise what must not be done
            reason = "its pickle holds more than tensors, or is damaged"
        raise StageFailed(f"{path.name}: not a valid file of pickled weights: {reason}") from None
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise StageFailed(f"{path.name}: not a valid file of pickled weights: it is no dictionary of tensors")
    return loaded


def _refuse_packed(path: Path) -> None:
    """Check that an archive packs nothing: torch stores, and what is packed may take any amount of memory.

    Raises:
        StageFailed: it does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [each.filename for each in archive.infolist() if each.file_size > each.compress_size]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return  # torch says what it is
    if packed:
        raise StageFailed(f"{path.name}: not a valid file of pickled weights: {packed[0]!r} in it is packed")
