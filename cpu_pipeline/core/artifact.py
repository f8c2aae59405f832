"""What stages pass to each other: a sealed directory, its format, its facts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]
"""Small JSON-able results of a stage: counts, sizes in bytes, scores as fractions, timings in seconds."""

DIGEST = re.compile(r"[0-9a-f]{64}")
"""A digest as this package writes it: sha256 in hex."""

CARD = "cpu_pipeline.json"
"""The file in a model artifact that tells our backends how to run it."""


@dataclass(frozen=True)
class Artifact:
    """A directory that never changes again."""

    format: str
    """Which backend or stage reads it, such as `onnx` or `rows`."""
    path: Path
    """Its directory."""
    digest: str
    """Of names and contents of its files (see `digest_tree`)."""
    facts: Facts
    """What its stage measured and counted."""


@dataclass(frozen=True)
class Card:
    """How to run a model artifact, written into it as `cpu_pipeline.json`."""

    format: str
    needs: tuple[str, ...] = ()
    """Instruction sets without which its outputs are wrong or it does not run, as `host.isa()` spells them."""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    """Settings for the backend that loads it, such as OpenVINO's INFERENCE_PRECISION_HINT."""

    def write(self, out: Path) -> None:
        """Write the card into an artifact that is being built."""
        text = json.dumps(
            {"format": self.format, "needs": list(self.needs), "runtime": dict(self.runtime)}, indent=1, sort_keys=True
        )
        (out / CARD).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, format: str) -> Card:
        """Read the card of an artifact; one without a card has no requirements and no settings."""
        if not (path / CARD).is_file():
            return cls(format)
        fields = json.loads((path / CARD).read_text(encoding="utf-8"))
        return cls(fields["format"], tuple(fields["needs"]), fields["runtime"])


def canonical(value: Any) -> str:
    """Write a JSON value in canonical form: equal values are equal texts. NaN is a ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest_json(value: Any) -> str:
    """Digest a JSON value (sha256, hex), the same on every machine."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Digest one file's bytes (sha256, hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_resting(path: Path) -> str:
    """Digest one file's bytes, once in this process for as long as inode, size and times say that it rests."""
    seen = path.stat()
    return _digest_of(path, (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))


@lru_cache(maxsize=4096)
def _digest_of(path: Path, _: tuple[int, ...]) -> str:
    return digest_file(path)


def list_tree(root: Path) -> dict[str, tuple[int, str]]:
    """List every file below `root`: relative POSIX name -> (size in bytes, sha256)."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): (p.stat().st_size, digest_file(p)) for p in files}


def digest_listing(files: Mapping[str, tuple[int, str]]) -> str:
    """Digest a listing of `list_tree` (sha256, hex); times, modes and empty directories do not count."""
    return digest_json(["tree", {name: sha for name, (_, sha) in files.items()}])


def digest_tree(root: Path) -> str:
    """Digest a directory by relative names and contents (sha256, hex)."""
    return digest_listing(list_tree(root))
