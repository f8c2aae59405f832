"""A record of a step: request and result, written so that a damaged record can't pass for a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import Artifact, Facts, canonical, digest_json, digest_listing

MOST: Mapping[str, float] = {"when": 1e11, "seconds": 1e9, "peak_memory": 1e18}
"""Figure of a run -> what it stays below, so that it fits into dates and sums."""


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


@dataclass(frozen=True)
class StoredArtifact(Artifact):
    """An artifact in a store, with the record that names it."""

    record: Action

    @classmethod
    def of(cls, record: Action, path: Path) -> StoredArtifact:
        """Describe the object of a record; `path` is its directory."""
        return cls(record.format, path, record.object, record.facts, record)


def record_text(key: str, action: Action) -> str:
    """Write a record, with a digest of itself."""
    body = {"key": key, **vars(action)}
    return json.dumps({**body, "check": digest_json(body)}, sort_keys=True, indent=1) + "\n"


def plain(value: Any) -> Any:
    """Return a JSON value as it will be read again.

    Raises:
        TypeError, ValueError, RecursionError: it is not JSON, or holds half a character (a lone surrogate), which no
            file and no terminal takes.
    """
    read = json.loads(canonical(value))
    json.dumps(read, ensure_ascii=False).encode()
    return read


@lru_cache(maxsize=512)
def parse_record(key: str, text: bytes) -> Action | None:
    """Read a record; None when it is not exactly what was written for `key`.

    Equal bytes are parsed once: a command looks at each record to see what is cached, and again to use it.
    """
    try:
        decoded = text.decode("ascii")  # as it is written: no other encoding hides what is looked for here
        body = json.loads(decoded)
        check = body.pop("check")
        if check != digest_json(body) or body.pop("key") != key:
            return None
        if "\\ud" in decoded.lower():  # few hold any: most are not read twice
            plain(body)
        if not isinstance(body["format"], str) or not _bounded(body["run"]):
            return None
        if not all(isinstance(body[part], dict) for part in ("ingredients", "facts")):
            return None
        body["files"] = {name: (size, sha) for name, (size, sha) in body["files"].items()}
        action = Action(**body)
        return action if digest_listing(action.files) == action.object else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _bounded(run: Any) -> bool:
    """Say whether the figures of a run are numbers within bounds; each may be left out."""
    if not isinstance(run, dict):
        return False
    figures = ((run[name], most) for name, most in MOST.items() if name in run)
    return all(type(value) in (int, float) and 0 <= value < most for value, most in figures)
