"""YAML with comments, written by PyYAML, so that what is written reads back as what was meant."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_NOTE = re.compile(r"^( *)comment-(\d+)-of-(\d+): null$", re.MULTILINE)
_ASIDE = re.compile(r"-comment-(\d+)-of-(\d+)$", re.MULTILINE)


class Note(str):
    """A key that becomes a comment; its value is not written. Not the first key of a list's item."""


class Aside(str):
    """A word with a comment behind it, on its line."""

    says: str


def aside(word: str, text: str) -> Aside:
    """Put a comment behind a word that YAML needs no quotes for."""
    made = Aside(word)
    made.says = text
    return made


def note(text: str) -> dict[str, Any]:
    """Put a comment between the keys of a mapping: `{**note("why"), "key": ...}`."""
    return {Note(text): None} if text else {}


def dump(documents: Sequence[Mapping[str, Any]], head: str) -> str:
    """Write documents below a comment of several lines."""
    return comment(head) + "---\n".join(map(_document, documents))


def comment(text: str, indent: str = "") -> str:
    """Write text as lines of comment."""
    width = 118 - len(indent)
    lines = [
        part for line in text.splitlines() for part in (textwrap.wrap(line, width, break_on_hyphens=False) or [""])
    ]
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in lines)


def _document(document: Mapping[str, Any]) -> str:
    notes: list[str] = []

    class Dumper(yaml.SafeDumper):
        """Knows notes, and writes scripts as the blocks they are."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)  # items of a list stand deeper than its key

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    def write_note(dumper: yaml.SafeDumper, text: Note) -> yaml.ScalarNode:
        notes.append(str(text))
        return dumper.represent_scalar("tag:yaml.org,2002:str", f"comment-{len(notes) - 1}-of-{id(notes)}")

    def write_aside(dumper: yaml.SafeDumper, word: Aside) -> yaml.ScalarNode:
        notes.append(word.says)
        return dumper.represent_scalar("tag:yaml.org,2002:str", f"{word}-comment-{len(notes) - 1}-of-{id(notes)}")

    Dumper.add_representer(str, write_text)
    Dumper.add_representer(Note, write_note)
    Dumper.add_representer(Aside, write_aside)
    text = yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096)

    def read_note(match: re.Match[str]) -> str:
        if match[3] != str(id(notes)):
            return match[0]  # a line of somebody's script that looks like ours
        return comment(notes[int(match[2])], match[1]).removesuffix("\n")

    def read_aside(match: re.Match[str]) -> str:
        return f" # {notes[int(match[1])]}" if match[2] == str(id(notes)) else match[0]

    return _ASIDE.sub(read_aside, _NOTE.sub(read_note, text))
