"""Write a draft as the text of a recipe: a line for each key, and a comment for each line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cpu_pipeline.recipe.document import scalar

PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~ -]*(?<! )")
"""Text that means itself without quotes, also between braces."""
WIDTH = 72
"""Longest line that has its comment beside it."""


def render(schema: str | None, lines: Sequence[tuple[str, str]]) -> str:
    """Write lines of YAML with their comments aligned; a comment too far to the right goes above its line.

    Args:
        schema: what the editor reads the schema from; None to leave that line out.
        lines: YAML and comment of each line.
    """
    short = [len(text) for text, about in lines if about and len(text) <= WIDTH]
    column = max(short, default=0) + 2
    written = [] if schema is None else [f"# yaml-language-server: $schema={schema}"]
    for text, about in lines:
        if not about:
            written.append(text)
        elif len(text) < column:
            written.append(f"{text:{column}}# {about}")
        else:
            indent = text[: len(text) - len(text.lstrip())]
            written += [f"{indent}# {about}", text]
    return "\n".join(written) + "\n"


def flow(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{plain(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        return plain(value)
    return json.dumps(value)


def plain(text: str) -> str:
    """Write text, in quotes where it would mean something else."""
    if PLAIN.fullmatch(text):
        try:
            if scalar(text) == text:
                return text
        except ValueError:
            pass
    return json.dumps(text, ensure_ascii=False)
