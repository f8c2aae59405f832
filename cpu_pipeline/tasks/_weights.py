"""Read a safetensors file of a few tensors with numpy alone: the layers that sentence-transformers puts after a model.

The format: 8 bytes little-endian length of the header, the header in JSON, then the tensors.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Type as safetensors spells it -> numpy's; bfloat16 is read as the upper half of a float32."""


def read(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read every tensor of a file as float64, each in its own shape.

    Raises:
        RecipeError: the file is not valid, or a tensor is no floating-point one.
    """
    try:
        return _read(file.read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        where = f"{file.parent.name}/{file.name}"
        raise RecipeError(f"{where}: not a valid safetensors file: {error}; save the model again") from None


def _read(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start].decode("utf-8"))
    header.pop("__metadata__", None)
    return {name: _tensor(name, entry, content[start:]) for name, entry in header.items()}


def _tensor(name: str, entry: dict[str, Any], data: bytes) -> np.ndarray[Any, Any]:
    import numpy as np

    if entry["dtype"] not in TYPES:
        raise ValueError(f"tensor {name!r} is of type {entry['dtype']}; known are {', '.join(TYPES)}")
    first, last = entry["data_offsets"]
    values = np.frombuffer(data[first:last], dtype=TYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float64).reshape(entry["shape"])
