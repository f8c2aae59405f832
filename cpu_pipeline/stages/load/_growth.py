"""A tokenizer.json that makes a short text very long: found in its rules, before any text is put through them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from cpu_pipeline.core.errors import RecipeError

MOST = 100
"""How many times longer the rules of a tokenizer may make a text; NFKC's longest replacement is 18 characters."""
INSERTED = 4096
"""Special tokens that a tokenizer may add to a text."""


def check(tokenizer: dict[str, Any]) -> None:
    """Check that the rules of a tokenizer.json make no text more than `MOST` times as long.

    Raises:
        RecipeError: they do; names the rule.
    """
    growth = 1
    for place in ("normalizer", "pre_tokenizer"):
        for step in _steps(tokenizer.get(place)):
            growth *= max(_growth(step), 1)
            if growth > MOST:
                raise RecipeError(
                    f"tokenizer.json: its {place} {step.get('type')} makes a text {growth} times as long, and at most "
                    f"{MOST} times is taken; correct it, or name another tokenizer"
                )
    for step in _steps(tokenizer.get("post_processor")):
        for name in ("single", "pair"):
            pieces = step.get(name)
            if isinstance(pieces, list) and len(pieces) > INSERTED:
                raise RecipeError(f"tokenizer.json: its post_processor adds {len(pieces)} tokens to a text; correct it")


def _steps(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """List the steps of a rule, those of sequences one by one.

    Raises:
        RecipeError: it is nested too deeply.
    """
    if depth > 32:
        raise RecipeError("tokenizer.json: its rules are nested too deeply; fetch it again")
    if isinstance(value, dict):
        yield value
        for name in ("normalizers", "pretokenizers", "processors"):
            for inner in value.get(name) or () if isinstance(value.get(name), list) else ():
                yield from _steps(inner, depth + 1)


def _growth(step: dict[str, Any]) -> int:
    """Say how many times longer a step can make a text, rounded down."""
    match step.get("type"):
        case "Replace":
            pattern = step.get("pattern")
            said = pattern.get("String") if isinstance(pattern, dict) else None
            return len(str(step.get("content") or "")) // (len(said) if isinstance(said, str) and said else 1)
        case "Prepend":
            return len(str(step.get("prepend") or "")) // 4
        case "Precompiled":
            return _longest(step.get("precompiled_charsmap")) // 4
        case _:
            return 1


def _longest(charsmap: Any) -> int:
    """Count the bytes of the longest replacement of sentencepiece's table: a trie, then texts that end with NUL."""
    try:
        table = base64.b64decode(charsmap or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        return 0
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return max((len(text) for text in texts.split(b"\0")), default=0)
