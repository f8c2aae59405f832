"""Memory that runs out is told as such, whoever noticed it."""

from __future__ import annotations

import errno
import os

import pytest

from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.engine.worker.exhausted import exhausted


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        BackendMissing("needs torch: libtorch_cpu.so: failed to map segment from shared object"),
        StageFailed("m/model.onnx: not a valid ONNX model: bad allocation: std::bad_alloc"),
    ],
    ids=repr,
)
def test_what_libraries_say_is_known(error: BaseException) -> None:
    told = exhausted(error)
    assert told is not None and str(told).startswith("out of memory (") and "--jobs 1" in str(told)
    assert exhausted(told) is None, "it is told once"


def test_the_cause_is_found_behind_what_came_of_it() -> None:
    """A checkpoint that found no room is no damaged checkpoint."""
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise StageFailed("model: not a valid checkpoint") from error
    except StageFailed as error:
        assert "MemoryError" in str(exhausted(error))


@pytest.mark.parametrize(
    "error", [ValueError("memory"), StageFailed("not a valid checkpoint"), RecipeError("bad_alloc")]
)
def test_other_errors_stay(error: BaseException) -> None:
    assert exhausted(error) is None
