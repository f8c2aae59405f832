"""Read YAML strictly: 1.2 scalars, no tags, no duplicate keys, capped; every value knows its line and column.

The reading of plain scalars is the core schema of YAML 1.2.2, chapter 10.3; PyYAML's own resolver follows 1.1, where
`no` is false, `010` is eight and `1e-3` is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cpu_pipeline.core.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_NODES = 200_000
MAX_DEPTH = 64
MAX_ALIASES = 64
MAX_DIGITS = 64
"""Of a number: enough for a commit without quotes, which is then refused because it is no text."""

Keys = tuple[int | str, ...]
"""The location of a value: mapping keys and list positions from the root."""

_LIBYAML_DEPTH = "exceeded maximum nesting depth"
"""How libyaml (PyYAML 6.0.4 and later) words its own limit, which is above ours."""
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that show text in another order than it is read (https://trojansource.codes), and halves
of characters; an escape in quotes can hold any."""
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and its location."""

    keys: Keys
    says: str
    at: tuple[int, int] | None = None
    """Line and column, from 1, where the keys do not identify it (a duplicate, a syntax error)."""


@dataclass
class Document:
    """The value of one YAML file, and the location of each part."""

    path: Path
    value: Any = None
    marks: dict[Keys, tuple[int, int]] = field(default_factory=dict)

    def where(self, keys: Keys) -> str:
        """Write `file:line:column` of the deepest part of `keys` that the file really has."""
        line, column = self._mark(keys)
        return f"{self.path}:{line}:{column}"

    def error(self, problems: Iterable[Problem]) -> RecipeError:
        """Put every problem on a line of its own, in the order of the file."""
        lines = set()
        for problem in problems:
            line, column = problem.at or self._mark(problem.keys)
            path = ".".join(map(str, problem.keys))
            message = _printable(f"{path + ': ' if path else ''}{problem.says}")
            lines.add((line, column, f"{self.path}:{line}:{column}: {message}"))
        return RecipeError("\n".join(text for _, _, text in sorted(lines)))

    def _mark(self, keys: Keys) -> tuple[int, int]:
        while keys and keys not in self.marks:
            keys = keys[:-1]
        return self.marks.get(keys, (1, 1))


def read_document(path: Path, *, any_text: bool = False) -> Document:
    """Read one YAML file whose root is a mapping; with `any_text` texts may hold any character, as in a lock.

    Raises:
        RecipeError: it is missing, unreadable, over a cap, or not one plain document.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path}: over {MAX_BYTES} bytes; a recipe names data, it does not hold it")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecipeError(f"{path}:1:1: not UTF-8 (this looks like UTF-16); save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}:{line}:1: not UTF-8; save it as UTF-8") from error
    if "\0" in text:
        raise RecipeError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}:1: holds a NUL character")
    document = parse(text, path, any_text=any_text)
    if not isinstance(document.value, dict):
        found = "a list" if isinstance(document.value, list) else "nothing" if document.value is None else "one value"
        raise RecipeError(f"{path}:1:1: must hold keys and values, holds {found}")
    return document


def parse(text: str, path: Path, *, any_text: bool = False) -> Document:
    """Read YAML text; `path` is for messages."""
    document = Document(path)
    try:
        text.encode()  # bytes of a command line that are not UTF-8 arrive as lone surrogates
    except UnicodeEncodeError as error:
        raise RecipeError(f"{path}:1:1: not UTF-8; write it as UTF-8") from error
    try:
        document, problems = _build(text, path, any_text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.context, error.problem)))
        if "\\t" in message or "'\t'" in message or (mark and _line_of(text, mark.line).lstrip(" ").startswith("\t")):
            message = "a tab cannot indent YAML; use spaces"
        at = (mark.line + 1, mark.column + 1) if mark else None
        raise document.error([Problem((), message, at)]) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}:1:1: {' '.join(str(error).split())}") from error
    if problems:
        raise document.error(problems)
    return document


def _build(text: str, path: Path, any_text: bool) -> tuple[Document, list[Problem]]:
    document, problems = Document(path), list[Problem]()
    try:
        _Builder(document, problems, any_text).build(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        if _LIBYAML_DEPTH not in (error.problem or ""):
            raise
        # libyaml reads ahead and meets its own limit first. The parser in Python has none: it reaches our limit.
        document, problems = Document(path), []
        _Builder(document, problems, any_text).build(text, yaml.SafeLoader)
    return document, problems


def scalar(text: str) -> Any:
    """Read one plain scalar as YAML 1.2 does.

    Raises:
        ValueError: an infinite number, NaN, or one with too many digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"{text[:12]}… is too large a number")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise ValueError(f"{text[:40]} is too large a number")
    if _SPECIAL.fullmatch(text):
        raise ValueError(f"{text} is not a number that anything can be compared with")
    return text


def _printable(text: str) -> str:
    """Escape what is not printable: some of these characters end a line, others steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _line_of(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


class _Builder:
    """Build plain values from parse events, counting as it goes, so that nothing is expanded before it is allowed."""

    def __init__(self, document: Document, problems: list[Problem], any_text: bool) -> None:
        self.document, self.problems, self.any_text = document, problems, any_text
        self.nodes = self.aliases = 0
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.open_anchors: set[str] = set()

    def build(self, text: str, loader: Any) -> None:
        self.events = yaml.parse(text, Loader=loader)
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event, "a second document begins here; one file is one recipe or pipeline")
            elif isinstance(event, yaml.NodeEvent):
                self.document.value = self._node(event, (), 0)

    def _refuse(self, event: Any, message: str) -> RecipeError:
        return self.document.error([Problem((), message, self._at(event))])

    @staticmethod
    def _at(event: Any) -> tuple[int, int]:
        return event.start_mark.line + 1, event.start_mark.column + 1

    def _node(self, event: Any, keys: Keys, depth: int) -> Any:
        self._count(event, 1)
        if depth > MAX_DEPTH:
            raise self._refuse(event, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag is not None and event.tag != "!":
            raise self._refuse(event, f"tags such as {event.tag} are not allowed; a recipe is data")
        anchor = event.anchor
        if anchor:
            self.open_anchors.add(anchor)
        before = self.nodes
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, keys)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(keys, depth)
        else:
            value = self._mapping(keys, depth)
        if anchor:
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = (value, self.nodes - before + 1)
        return value

    def _count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self._refuse(event, f"more than {MAX_NODES} values, aliases counted in full")

    def _alias(self, event: Any) -> Any:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self._refuse(event, f"more than {MAX_ALIASES} aliases")
        if event.anchor in self.open_anchors:
            raise self._refuse(event, f"*{event.anchor} holds itself")
        if event.anchor not in self.anchors:
            raise self._refuse(event, f"*{event.anchor} is not defined above")
        value, size = self.anchors[event.anchor]
        self._count(event, size)
        return value

    def _scalar(self, event: Any, keys: Keys) -> Any:
        if not self.any_text and (found := _UNSEEN.search(event.value)):
            raise self._refuse(
                event, f"holds U+{ord(found[0]):04X}, which no name or text of a recipe needs; take it out"
            )
        if event.style or event.tag == "!":
            return event.value
        try:
            return scalar(event.value)
        except ValueError as error:
            self.problems.append(Problem(keys, str(error), self._at(event)))
            return None

    def _sequence(self, keys: Keys, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = (*keys, len(items))
            self.document.marks[item] = self._at(event)
            items.append(self._node(event, item, depth + 1))
        return items

    def _mapping(self, keys: Keys, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, keys, depth + 1)
            if not isinstance(key, str):
                raise self._refuse(event, "a key must be text; put it in quotes")
            path = (*keys, key)
            if key in items:
                first = self.document.marks[path][0]
                self.problems.append(Problem(path, f"duplicate key; the first is on line {first}", self._at(event)))
            else:
                self.document.marks[path] = self._at(event)
            items[key] = self._node(next(self.events), path, depth + 1)
        return items
