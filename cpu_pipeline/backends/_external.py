"""Read the paths of an ONNX file's external tensors, without any runtime, and refuse paths outside its directory.

Walks protobuf's wire format (protobuf.dev/programming-guides/encoding) over a memory map and skips what it does not
need, so that gigabytes of weights cost neither time nor memory, and running a model does not need the onnx package.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from pathlib import Path

from cpu_pipeline.core.errors import Refused, StageFailed

TENSOR = "tensor"
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: TENSOR, 2: TENSOR},
}
"""Message -> field number -> message in it, of onnx.proto: every way that leads to a TensorProto."""
EXTERNAL_DATA, KEY, VALUE = 13, 1, 2
DEEPEST = 100
"""Protobuf's own limit on nested messages."""


def screen(path: Path) -> None:
    """Check that the ONNX file at `path` is whole and that its external data lies in its own directory.

    Raises:
        StageFailed: it is empty, cut, or not an ONNX model.
        Refused: a tensor's data lies outside, in a link, or beyond the end of its file.
    """
    if not path.is_file():
        raise StageFailed(f"{path}: not a valid ONNX model: no such file")
    if path.stat().st_size == 0:
        raise StageFailed(f"{path}: not a valid ONNX model: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if not any(number == 7 for number, _, _ in _fields(data, 0, len(data))):
                raise ValueError("it has no graph")
            entries = list(_tensors(data, "model", 0, len(data), 0))
        except (ValueError, IndexError) as error:
            raise StageFailed(f"{path}: not a valid ONNX model: {error}; build it again") from error
    for entry in {tuple(sorted(entry.items())): entry for entry in entries}.values():
        _check(path, entry)


def _tensors(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[dict[str, str]]:
    """Yield the external_data entries of every tensor in one message."""
    if depth > DEEPEST:
        raise ValueError("messages are nested too deeply")
    entries = []
    for number, low, high in _fields(data, start, end):
        if message == TENSOR:
            if number == EXTERNAL_DATA and low < high:
                entries.append(_entry(data, low, high))
        elif number in FIELDS[message] and low <= high:
            yield from _tensors(data, FIELDS[message][number], low, high, depth + 1)
    if entries:
        yield _join(entries)


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    texts = {number: data[low:high].decode() for number, low, high in _fields(data, start, end)}
    return texts.get(KEY, ""), texts.get(VALUE, "")


def _join(entries: list[tuple[str, str]]) -> dict[str, str]:
    if len({key for key, _ in entries}) < len(entries):
        raise ValueError("a tensor names its external data twice")
    return dict(entries)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of each field; numbers have an end before their start."""
    while start < end:
        tag, start = _varint(data, start, end)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            size, start = _varint(data, start, end)
            if start + size > end:
                raise ValueError("it is cut")
            yield number, start, start + size
            start += size
            continue
        if wire == 0:
            _, start = _varint(data, start, end)
        elif wire in (1, 5):
            start += 8 if wire == 1 else 4
        else:
            raise ValueError("it is not protobuf")
        if start > end or number == 0:
            raise ValueError("it is cut" if number else "it is not protobuf")
        yield number, 1, 0


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
    raise ValueError("it is cut")


def _check(model: Path, entry: dict[str, str]) -> None:
    location = entry.get("location", "")
    where = f"{model}: external data in {location!r}"
    name = Path(location)
    # "*" begins ONNX Runtime's own mark for "at this address in memory".
    if not location or set(location) & set("\0\\*") or name.is_absolute() or ".." in name.parts:
        raise Refused(f"{where} is not a relative name inside the model's directory; do not open this file")
    path = model.parent
    for part in name.parts:
        path = path / part
        if path.is_symlink():
            raise Refused(f"{where} is reached through a symbolic link; copy the file itself")
    try:
        found = path.stat()
    except OSError as error:
        raise StageFailed(f"{where} is missing; copy it beside the model, or build the model again") from error
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{where} is not a regular file")
    if found.st_nlink > 1:
        raise Refused(f"{where} has more than one hard link; copy the file itself")
    try:
        offset, length = int(entry.get("offset", "0")), int(entry.get("length", "0"))
    except ValueError as error:
        raise Refused(f"{where}: offset or length is not a number") from error
    if offset < 0 or length < 0 or offset + length > found.st_size:
        raise Refused(f"{where}: {length} bytes at {offset} do not lie in its {found.st_size} bytes")
