"""Read text files of any size piece by piece: UTF-8, packed with gzip or not, with errors that name file and line."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cpu_pipeline.core.errors import RecipeError

LONGEST = 64 << 20
"""Characters of the longest row that is read; bounds the memory that a damaged file takes."""
PIECE = 1 << 16
"""Bytes that are read at once."""
UNPACKED, RATIO = 64 << 20, 100
"""Bytes that any gzip stream may give, and how many times its own length beyond them: text packs 3 to 50 times."""
GZIP = b"\x1f\x8b"
"""How a file packed with gzip begins, whatever it is called."""
OTHERS = (
    (codecs.BOM_UTF32_LE, "it is UTF-32; save it as UTF-8"),
    (codecs.BOM_UTF16_LE, "it is UTF-16; save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "it is UTF-16; save it as UTF-8"),
    (b"PK\x03\x04", "it is a spreadsheet or a zip archive; export it as CSV, in UTF-8"),
    (b"PAR1", "it is a Parquet file; end its name in .parquet"),
)
"""How files begin that are no UTF-8 text, and what to say of them."""


def pieces(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Read a text file in pieces of at most a line, each with its line's number from 1; a mark at the head is left out.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        RecipeError: it is not UTF-8, holds NUL characters, or its gzip stream is damaged or packs far too much.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    number, had = 1, 0
    most = max(UNPACKED, RATIO * path.stat().st_size)  # what is not packed has no more than itself
    with _opened(path, name) as file:
        raw = _without_mark(file.readline(PIECE), name)
        while raw:
            had += len(raw)
            if had > most and had > path.stat().st_size:
                raise RecipeError(
                    f"{name}:{number}: its gzip stream of {path.stat().st_size:,} bytes gives more than {most:,}: that "
                    f"is no data set; unpack it yourself, or check where it is from"
                )
            yield number, _text(decoder, raw, name, number)
            number += raw[-1:] == b"\n"
            raw = file.readline(PIECE)
        _text(decoder, b"", name, number, final=True)


def lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Read the lines, ended by a line feed, each with its number from 1 and its end.

    Raises:
        RecipeError: as `pieces`, and a line is too long.
    """
    parts: list[str] = []
    size, number = 0, 1
    for number, piece in pieces(path, name):
        if not parts and piece[-1:] == "\n":
            yield number, piece
            continue
        parts.append(piece)
        size += len(piece)
        if size > LONGEST:
            raise RecipeError(f"{name}:{number}: a line of more than {LONGEST >> 20} Mi characters; is each a row?")
        if piece.endswith("\n"):
            yield number, "".join(parts)
            parts, size = [], 0
    if parts:
        yield number, "".join(parts)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        packed = plain.peek(2)[:2] == GZIP
        try:
            if packed:
                with gzip.open(plain) as unpacked:
                    yield io.BufferedReader(unpacked)
            else:
                yield plain
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            raise RecipeError(f"{name}: its gzip stream is damaged or cut ({error}); fetch or write it again") from None


def _without_mark(head: bytes, name: str) -> bytes:
    for start, says in OTHERS:
        if head.startswith(start):
            raise RecipeError(f"{name}: {says}")
    return head.removeprefix(codecs.BOM_UTF8)


def _text(decoder: codecs.IncrementalDecoder, raw: bytes, name: str, number: int, *, final: bool = False) -> str:
    try:
        text = decoder.decode(raw, final)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise RecipeError(f"{name}:{number}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None
    if "\0" in text:
        raise RecipeError(f"{name}:{number}: a NUL character; it is UTF-16 or no text: save it as UTF-8")
    return text
