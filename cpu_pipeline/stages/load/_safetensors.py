"""Screening of safetensors files: the header alone is read, and every promise of the format is checked.

The format: 8 bytes little-endian length of the header, the header in JSON, then the tensors, one after the other,
without holes. https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import StageFailed

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library itself."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Type of a tensor's values -> bits of each."""


@dataclass
class Weights:
    """What the headers of a model's weights say."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Tensor -> its shape."""
    parameters: int = 0
    size: int = 0
    """Bytes of all tensors."""
    dtypes: Counter[str] = field(default_factory=Counter)
    """Type -> number of tensors."""

    @property
    def names(self) -> set[str]:
        """Name the tensors."""
        return set(self.shapes)

    def __iadd__(self, other: Weights) -> Weights:
        """Add the weights of another shard."""
        self.shapes |= other.shapes
        self.parameters += other.parameters
        self.size += other.size
        self.dtypes += other.dtypes
        return self


def screen(path: Path) -> Weights:
    """Read and check the header of a safetensors file.

    Raises:
        StageFailed: it is not a valid safetensors file; says why.
    """
    try:
        return _screen(path)
    except (ValueError, RecursionError) as error:
        raise StageFailed(f"{path.name}: not a valid safetensors file: {error}; fetch or save it again") from None


def _screen(path: Path) -> Weights:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        sane = len(start) == 8 and 2 <= length <= min(LONGEST_HEADER, size - 8)
        text = file.read(length) if sane else b""
    if text[:1] != b"{":
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise ValueError("it is a pickle, whatever its name says")
        reason = "its header does not begin with `{`" if sane else f"a header of {length} bytes in a file of {size}"
        raise ValueError(reason)
    header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_doubles)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not a map of strings")
    weights = Weights()
    spans = []
    for name, entry in header.items():
        begin, end, count = _span(name, entry)
        spans.append((begin, end, name))
        weights.shapes[name] = tuple(entry["shape"])
        weights.parameters += count
        weights.dtypes[entry["dtype"]] += 1
    weights.size = size - 8 - length
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise ValueError(f"tensor {name!r} begins at {begin} where {reached} is expected: a hole or an overlap")
        reached = end
    if reached != weights.size:
        raise ValueError(f"its tensors end at {reached}, its data at {weights.size}")
    return weights


def _span(name: str, entry: Any) -> tuple[int, int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {name!r} is of the unknown type {dtype!r}")
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has a shape or offsets that are not lists of whole numbers")
    count = prod(shape)
    if (offsets[1] - offsets[0]) * 8 != count * BITS[dtype]:
        raise ValueError(f"tensor {name!r} of shape {shape} and type {dtype} does not fill its offsets {offsets}")
    return offsets[0], offsets[1], count


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in its header twice")
    return found
