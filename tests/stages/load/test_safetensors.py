"""Screening of safetensors files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.stages.load._safetensors import screen

GOOD = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(path: Path, header: Any, data: bytes = bytes(24), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_a_saved_file_passes_and_is_counted(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.float32), "empty": np.zeros((0, 4), np.int64)}
    save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    weights = screen(tmp_path / "x")
    assert (weights.names, weights.parameters, weights.size) == ({"a", "b", "empty"}, 7, 16)
    assert weights.dtypes == {"F16": 1, "F32": 1, "I64": 1}


@pytest.mark.parametrize("low", [0x80, 0x50])
def test_a_header_whose_length_looks_like_a_pickle_passes(tmp_path: Path, low: int) -> None:
    text = json.dumps(GOOD)
    length = (0x4B00 if low == 0x50 else 0x0200) + low
    assert screen(write(tmp_path / "x", text.encode().ljust(length))).parameters == 6


@pytest.mark.parametrize(
    ("header", "data", "length", "says"),
    [
        (GOOD, bytes(23), None, "its tensors end at 24, its data at 23"),
        (GOOD, bytes(25), None, "its tensors end at 24, its data at 25"),
        (GOOD, bytes(24), 10_000, "a header of 10000 bytes"),
        (GOOD, bytes(24), 2**63, "a header of"),
        (GOOD, bytes(24), 0, "a header of 0 bytes"),
        (b" " + json.dumps(GOOD).encode(), bytes(24), None, "does not begin"),
        (b'{"a":' * 100_000, bytes(24), None, "not a valid safetensors file"),
        (b"{\xff}", bytes(24), None, "utf-8"),
        ([], bytes(24), None, "does not begin"),
        ({"w": {**GOOD["w"], "dtype": "Q8"}}, bytes(24), None, "unknown type"),
        ({"w": {**GOOD["w"], "dtype": ["F32"]}}, bytes(24), None, "unknown type"),
        ({"w": {**GOOD["w"], "shape": [2, -3]}}, bytes(24), None, "whole numbers"),
        ({"w": {**GOOD["w"], "shape": [True, 6]}}, bytes(24), None, "whole numbers"),
        ({"w": {**GOOD["w"], "shape": [2, 4]}}, bytes(24), None, "does not fill"),
        ({"w": {**GOOD["w"], "shape": [2**40, 2**40]}}, bytes(24), None, "does not fill"),
        ({"w": {**GOOD["w"], "data_offsets": [24, 0]}}, bytes(24), None, "does not fill"),
        ({"w": {**GOOD["w"], "data_offsets": [0, 24, 24]}}, bytes(24), None, "whole numbers"),
        ({"w": {**GOOD["w"], "data_offsets": [8, 32]}}, bytes(32), None, "a hole or an overlap"),
        ({**GOOD, "v": GOOD["w"]}, bytes(24), None, "a hole or an overlap"),
        ({"w": {"dtype": "F32"}}, bytes(24), None, "must have dtype"),
        ({"w": {**GOOD["w"], "more": 1}}, bytes(24), None, "nothing else"),
        ({**GOOD, "__metadata__": {"a": 1}}, bytes(24), None, "__metadata__"),
        (b'{"w":1,"w":2}', b"", None, "twice"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, header: Any, data: bytes, length: int | None, says: str) -> None:
    with pytest.raises(StageFailed, match=r"x: not a valid safetensors file: .*") as caught:
        screen(write(tmp_path / "x", header, data, length))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_pickles_and_scraps_are_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(StageFailed, match="it is a pickle"):
        screen(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(StageFailed, match="it is a pickle"):
        screen(path)
    for scrap in (b"", b"1234567", b"<html>not found</html>"):
        path.write_bytes(scrap)
        with pytest.raises(StageFailed, match="not a valid safetensors file"):
            screen(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_passes_that_the_library_refuses(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x"
    save_file({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.int8)}, path, metadata={"format": "pt"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        if not content:
            break
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 20))]
    path.write_bytes(content)
    try:
        weights = screen(path)
    except StageFailed as error:
        assert "not a valid safetensors file" in str(error)
        return
    try:
        with safe_open(path, "np") as file:
            assert set(file.keys()) == weights.names
    except SafetensorError as error:
        pytest.fail(f"screened as valid, but the library says {error}")
