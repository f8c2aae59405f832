"""Text for people."""

from __future__ import annotations

import pytest

from cpu_pipeline.core.text import one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad\n  shape:\t(1, 2)\n"), "bad shape: (1, 2)"),
        (RuntimeError("\x1b[31mFailed\x1b[0m to export"), "Failed to export"),
        (ValueError("x" * 400), "x" * 300),
        (KeyError("weight"), "'weight'"),
        (NotImplementedError(), "NotImplementedError"),
        (RuntimeError(" \n "), "RuntimeError"),
        (RuntimeError("\x1b[0m"), "RuntimeError"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_one_line_cuts_at_the_limit_without_a_space_at_the_end() -> None:
    assert one_line(ValueError("one two three"), limit=4) == "one"
