"""The log of promotions: a line each time `latest` was moved."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cpu_pipeline.core.files import write_file
from cpu_pipeline.release.latest import in_service, label, latest

PROMOTIONS = "promotions.jsonl"


@dataclass(frozen=True)
class Promotion:
    """One move of `latest`."""

    version: str
    when: str
    """UTC, as ISO 8601 has it."""
    by: str
    """run, refresh or rollback; `hand` when somebody moved `latest` without this tool."""
    instead_of: str | None
    """The version that was in service until then."""
    reason: str | None = None
    """Why it was put into service though --set changed the recipe; None where it did not."""

    @property
    def line(self) -> dict[str, str | None]:
        """Return it as the log has it."""
        return {key: value for key, value in asdict(self).items() if key != "reason" or value is not None}


def promoted(home: Path) -> list[Promotion]:
    """List the promotions, oldest first, as they were: the last one is what `latest` names now."""
    found = read_lines(home)
    missing = missing_line(home, found)
    return [*found, missing] if missing else found


def rejected(home: Path) -> set[str]:
    """Name the versions that a rollback took out of service and nobody promoted by hand since.

    Going back to an earlier version rejects the later one; going forward again rejects nothing. Which is the later one
    follows from when each was last promoted other than by a rollback.
    """
    found = set[str]()
    last: dict[str, int] = {}
    for number, move in enumerate(promoted(home)):
        if move.by != "rollback":
            last[move.version] = number
        if move.by != "refresh":
            found.discard(move.version)
        out = move.instead_of
        if move.by == "rollback" and out is not None and last.get(out, -1) > last.get(move.version, -1):
            found.add(out)
    return found


def read_lines(home: Path) -> list[Promotion]:
    """Read promotions.jsonl; a line that was cut or is not one of ours is left out."""
    try:
        text = (home / PROMOTIONS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [move for line in text.splitlines() if (move := _parse(line)) is not None]


def _parse(line: str) -> Promotion | None:
    try:
        fields = json.loads(line)
        move = Promotion(fields["version"], fields["when"], fields["by"], fields["instead_of"], fields.get("reason"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (move.version, move.when, move.by, move.instead_of or "", move.reason or "")
    return move if all(isinstance(text, str) for text in texts) else None


def missing_line(home: Path, lines: Sequence[Promotion]) -> Promotion | None:
    """Return the promotion that the lines lack, though `latest` shows that it happened."""
    now = label(latest(home))
    before = lines[-1].version if lines else None
    if now is None or now == before or in_service(home) is None:
        return None
    with contextlib.suppress(OSError):
        intent = _parse((home / ".promoting").read_text(encoding="utf-8", errors="replace"))
        if intent is not None and intent.version == now:
            return intent
    with contextlib.suppress(OSError):
        when = datetime.fromtimestamp((home / "latest").lstat().st_mtime, UTC).isoformat(timespec="seconds")
        # Versions that came out before promotions were written down came from `run`.
        return Promotion(now, when, "hand" if lines else "run", before)
    return None


def append(home: Path, move: Promotion) -> None:
    """Add a line; the file is replaced, so that no fault of a disk costs the lines before."""
    try:
        text = (home / PROMOTIONS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    whole = "" if not text or text.endswith("\n") else "\n"  # a line that was cut
    write_file(home / PROMOTIONS, f"{text}{whole}{json.dumps(move.line)}\n", home / ".promoting.new")
