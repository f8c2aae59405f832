"""Text for people: suggestions, sizes, one line of a library's error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences that colour a terminal's text; some libraries put them into their errors."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Write ` (did you mean ...?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""


def size(count: float) -> str:
    """Write bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def one_line(error: BaseException, limit: int = 300) -> str:
    """Write a library's error as one line for our own message.

    Args:
        error: what the library raised or warned of.
        limit: most characters of the line.

    Returns:
        The message with every run of white space as one space and without colours; the name of the error's type where
        there is no message, so that the line is never empty.
    """
    return " ".join(_COLOUR.sub("", str(error)).split())[:limit].rstrip() or type(error).__name__
