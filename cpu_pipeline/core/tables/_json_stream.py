"""Read the rows of one JSON document without holding it whole: a list of objects, or an object with them in `data`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from cpu_pipeline.core import text_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import DECODER, check_characters, reason

SPACE = re.compile(r"[ \t\r\n]*")


def rows(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects, each after its place: `rows.json, row 7`.

    Raises:
        RecipeError: it is no such document; the message names row or line.
    """
    document = _Document(text_files.pieces(path, name), name)
    if document.peek() == "{":
        document.enter_data()
    number = count(1)
    for item in document.items():
        for row in _squad(item) if isinstance(item, dict) and "paragraphs" in item else (item,):
            place = f"{name}, row {next(number)}"
            if not isinstance(row, dict):
                raise RecipeError(f"{place}: it is {type(row).__name__}, not an object with columns")
            yield place, row
    document.end()


def _squad(article: dict[str, Any]) -> Iterator[Any]:
    """Take an article of SQuAD's own files apart: one row for each question."""
    for paragraph in _objects(article.get("paragraphs")):
        for question in _objects(paragraph.get("qas")):
            yield {"title": article.get("title"), "context": paragraph.get("context"), **question}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


class _Document:
    """The text of a document, held from a place on."""

    def __init__(self, pieces: Iterator[tuple[int, str]], name: str) -> None:
        self._pieces, self._name = pieces, name
        self._text = ""
        self._at = 0
        self._line = 1

    def peek(self) -> str:
        """Skip white space and return the next character; empty at the end."""
        while True:
            self._go(self._end_of_space())
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def expect(self, characters: str) -> str:
        """Take one of these characters.

        Raises:
            RecipeError: another follows.
        """
        found = self.peek()
        if not found:
            raise self._broken("the file ends too soon: it is cut")
        if found not in characters:
            raise self._broken(f"{' or '.join(f'`{c}`' for c in characters)} is missing")
        self._go(self._at + 1)
        return found

    def value(self) -> Any:
        """Take one whole object, list or text; of a number nobody knows whether it goes on."""
        if self.peek() not in ('"', "{", "["):
            raise self._broken("neither an object, a list nor a text")
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                check_characters(self._text[self._at : end], value)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                raise self._broken(error.msg, error.pos) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except ValueError as error:
                raise self._broken(reason(error)) from None
            self._go(end)
            return value

    def items(self) -> Iterator[Any]:
        """Take the items of a list."""
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        yield self.value()
        while self.expect(",]") == ",":
            yield self.value()

    def enter_data(self) -> None:
        """Go into an object to the list called `data`, past whatever comes before.

        Raises:
            RecipeError: it has none.
        """
        self.expect("{")
        while self.peek() == '"':
            key = self.value()
            self.expect(":")
            if key == "data" and self.peek() == "[":
                return
            self._skip()
            if self.expect(",}") == "}":
                break
        raise RecipeError(
            f"{self._name}: one object without a list called `data`; "
            f"write a list of rows, or one row a line in a .jsonl file"
        )

    def end(self) -> None:
        """Check that only closing brackets are left.

        Raises:
            RecipeError: something else follows the rows.
        """
        while self.peek() == ",":
            self.expect(",")
            self.value()
            self.expect(":")
            self._skip()
        if self.peek() == "}":
            self.expect("}")
        if self.peek():
            raise self._broken("something follows the rows")

    def _skip(self) -> None:
        """Pass over one value of any kind."""
        if self.peek() in ('"', "{", "["):
            self.value()
            return
        while (char := self.peek()) and char not in ",}":
            self._go(self._at + 1)

    def _end_of_space(self) -> int:
        found = SPACE.match(self._text, self._at)
        return found.end() if found else self._at

    def _go(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Read on, at least as much again as is held, so that a long row is not parsed again and again."""
        parts = [self._text[self._at :]]
        size = held = len(parts[0])
        if held > text_files.LONGEST:
            raise self._broken(f"a row of more than {text_files.LONGEST >> 20} Mi characters")
        while size < max(2 * held, text_files.PIECE) and (piece := next(self._pieces, None)) is not None:
            parts.append(piece[1])
            size += len(piece[1])
        self._text, self._at = "".join(parts), 0
        return size > held

    def _broken(self, says: str, position: int | None = None) -> RecipeError:
        line = self._line + self._text.count("\n", self._at, self._at if position is None else position)
        return RecipeError(f"{self._name}:{line}: not JSON: {says}")
