"""When are two rows the same to a model? When what it is given agrees, however it is written; answers do not count."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache, lru_cache
from pathlib import PurePosixPath
from typing import Any

IGNORABLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | {
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
"""Characters that show nothing and are no format characters (Cf): Unicode's Default_Ignorable_Code_Point beyond Cf."""


def folded(text: str) -> str:
    """Write a text as NFKC, without case and without what shows nothing; each run of white space is one space."""
    if not text.isprintable():  # a line break, or a character that shows nothing
        text = _shown(text)
    if text.isascii():
        return " ".join(text.lower().split())
    # Nothing of a word depends on the words beside it: no character of white space takes part in a composition.
    words = (word.lower() if word.isascii() else _folded_word(word) for word in text.split())
    return " ".join(" ".join(words).split())


@lru_cache(maxsize=1 << 16)
def _folded_word(word: str) -> str:
    return _shown(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _shown(word)).casefold()))


def _shown(text: str) -> str:
    """Leave out format and control characters; those that are white space stay."""
    if text.isascii():
        return text.translate(_hidden_ascii())
    for char in _hidden().intersection(text):  # faster than `translate`, which is slow beyond ASCII
        text = text.replace(char, "")
    return text


@cache
def _hidden_ascii() -> dict[int, None]:
    return {ord(char): None for char in _hidden() if char.isascii()}


@cache
def _hidden() -> frozenset[str]:
    codes = (*range(0x20000), *range(0xE0000, 0xE1000))  # beyond these no character is a format or a control one
    return IGNORABLE | {
        char for char in map(chr, codes) if unicodedata.category(char) in ("Cf", "Cc") and not char.isspace()
    }


def essence(row: Mapping[str, Any], inputs: Sequence[str], files: Set[str]) -> tuple[tuple[str, Any], ...]:
    """Return what a model is given of a row, folded; of a file its content, which names it.

    Args:
        row: the row.
        inputs: the columns that the model is given.
        files: those that name files beside the rows.
    """
    return tuple((name, found) for name in inputs if (found := _folded(row.get(name), is_file=name in files)))


def _folded(value: Any, *, is_file: bool) -> Any:
    if isinstance(value, str):
        return PurePosixPath(value).stem if is_file else folded(value)
    if isinstance(value, Mapping):
        return tuple((str(key), _folded(value[key], is_file=is_file)) for key in sorted(value))
    if isinstance(value, Sequence):
        if all(isinstance(one, str) for one in value) and not is_file:
            return folded(" ".join(value))
        return tuple(_folded(one, is_file=is_file) for one in value)
    return value


def texts(essence: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """List the texts of what `essence` returned."""
    return (value for _, value in essence if isinstance(value, str))
