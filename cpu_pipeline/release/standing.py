"""How the version in service stands against the lock and a candidate."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cpu_pipeline.release import latest, lockfile, manifest, promotions


def wrong(home: Path) -> str | None:
    """Say what is wrong with what is in service, whatever the lock says."""
    version = latest.in_service(home)
    if version is None:
        return f"nothing is in service in {home}"
    if changed := manifest.edited(version):
        return f"{version} is in service and was edited ({', '.join(changed[:5])})"
    return None


def differs(home: Path, held: lockfile.Lock, names: Collection[str] | None) -> str | None:
    """Say that the version in service is not what the lock says: of these outputs, or of the version's own."""
    version = home / (latest.latest(home) or "")
    outputs = manifest.output_digests(version) or {}
    locked = _locked(held, outputs if names is None else names)
    return None if outputs == locked else f"{version} is in service, and is not what the lock says"


def rejects(home: Path, held: lockfile.Lock) -> bool:
    """Say whether the lock names what a rollback took out of service; where its version is gone, it is taken to."""
    for name in promotions.rejected(home):
        outputs = manifest.output_digests(home / name)
        if outputs is None or outputs == _locked(held, outputs):
            return True
    return False


def _locked(held: lockfile.Lock, names: Collection[str]) -> dict[str, str | None]:
    return {name: held["steps"].get(name, {}).get("output") for name in names}
