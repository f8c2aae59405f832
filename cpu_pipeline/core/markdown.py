"""Small pieces of Markdown; text that is not ours is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"^[-+]|[\\`*_{}\[\]<>#|~&$]")
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")


def escape(text: object) -> str:
    """Write text so that Markdown and HTML show it as it is, on one line."""
    line = _SPECIAL.sub(r"\\\g<0>", " ".join(str(text).split()))
    return _NUMBERED.sub(r"\1\\\2", line).replace("\\<", "&lt;").replace("\\>", "&gt;")


def code(text: object) -> str:
    """Write text as inline code; a backtick inside cannot end it."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table of cells that are escaped already."""
    return [
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]
