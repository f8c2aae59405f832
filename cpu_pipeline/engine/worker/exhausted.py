"""Tell by an error that memory ran out: Python and native libraries each say so in words of their own."""

from __future__ import annotations

import errno
import re

from cpu_pipeline.core.errors import BackendMissing, PipelineError, StageFailed

SAID = re.compile(
    r"(?i)cannot allocate memory|can't allocate memory|bad_?alloc|out of memory|failed to map segment|"
    r"failed to allocate memory|std::length_error|insufficient memory"
)
"""What libraries say: libc and its loader, torch, C++'s own errors in ONNX Runtime and OpenVINO."""


WHAT = "out of memory"
MISLED = (StageFailed, BackendMissing)
"""Errors that are raised for whatever a library says: a file is no model, a library can't be imported."""


def exhausted(error: BaseException | None) -> StageFailed | None:
    """Return the error of a step that needed more memory than there is; None when that is not the cause."""
    if isinstance(error, PipelineError) and (not isinstance(error, MISLED) or str(error).startswith(WHAT)):
        return None  # it says what to do already
    short, cause = None, error
    while cause is not None:
        denied = isinstance(cause, OSError) and cause.errno == errno.ENOMEM
        if isinstance(cause, MemoryError) or denied or SAID.search(str(cause)):
            short = cause  # the first of them knows best
        cause = cause.__cause__ or cause.__context__
    if short is None:
        return None
    said = " ".join(str(short).split())[:300]
    said = f"{type(short).__name__}: {said}" if said else type(short).__name__
    return StageFailed(f"{WHAT} ({said}); try fewer calibration rows, a smaller batch or --jobs 1, or raise the limit")
