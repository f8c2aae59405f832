"""What was asked and what came out of it, written so that a damaged record can't pass for a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpu_pipeline.artifact import Facts, digest_json, digest_listing


@dataclass(frozen=True)
class Action:
    """A remembered run: what went in, and the object that came out."""

    ingredients: Mapping[str, Any]
    format: str
    object: str
    """Digest of the object."""
    files: Mapping[str, tuple[int, str]]
    """Name -> (bytes, sha256) of every file of the object."""
    facts: Facts
    run: Mapping[str, Any]
    """How it went (seconds, peak_memory in bytes, when in seconds since 1970); never part of a key."""

    @property
    def size(self) -> int:
        """Add up the bytes of the object."""
        return sum(size for size, _ in self.files.values())


def record_text(key: str, action: Action) -> str:
    """Write a record, with a digest of itself."""
    body = {"key": key, **vars(action)}
    return json.dumps({**body, "check": digest_json(body)}, sort_keys=True, indent=1) + "\n"


def parse_record(key: str, text: bytes) -> Action | None:
    """Read a record; None when it is not exactly what was written for `key`."""
    try:
        body = json.loads(text)
        check = body.pop("check")
        if check != digest_json(body) or body.pop("key") != key:
            return None
        body["files"] = {name: (size, sha) for name, (size, sha) in body["files"].items()}
        action = Action(**body)
        return action if digest_listing(action.files) == action.object else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
