"""What is in service under a name, read once, and how it compares with the lock and with a candidate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import TryAgain
from cpu_pipeline.release import caveats, latest, lockfile, manifest, promotions
from cpu_pipeline.release.promotions import Promotion


class Overtaken(TryAgain):
    """Another version was put into service meanwhile: the candidate was compared with the wrong one."""


@dataclass(frozen=True)
class Standing:
    """A snapshot of what is in service. Its files were hashed once, when it was read."""

    home: Path
    """The artifact's directory, `artifacts/NAME`."""
    folder: Path | None
    """The directory that `latest` names; None when nothing is in service."""
    version: str | None
    """The version in it."""
    manifest: Mapping[str, Any] | None
    """Its manifest; None when there is none that can be read."""
    outputs: Mapping[str, str] | None
    """Output -> digest; None when the manifest does not name them."""
    edited: tuple[str, ...]
    """Files that are not as the manifest lists them."""
    promotions: tuple[Promotion, ...]
    """Oldest first."""
    rejected: Mapping[str, Mapping[str, str] | None]
    """Version that a rollback took out of service -> its outputs' digests; None when they can't be read."""

    @property
    def fault(self) -> str | None:
        """Return what is wrong with what is in service, without a look at the lock; None when nothing is."""
        if self.folder is None:
            return f"nothing is in service in {self.home}"
        if self.edited:
            return f"{self.folder} is in service and was edited ({', '.join(self.edited[:5])})"
        return None

    @property
    def rolled_back(self) -> bool:
        """Say whether a rollback put it into service."""
        return bool(self.promotions) and self.promotions[-1].by == "rollback"

    def differs(self, lock: lockfile.Lock, names: Collection[str] | None) -> str | None:
        """Compare the version in service with the lock: its outputs of these names, or all of its own when None."""
        outputs = self.outputs or {}
        if outputs == _locked(lock, outputs if names is None else names):
            return None
        return f"{self.folder or self.home} is in service, and is not what the lock says"

    def rejects(self, lock: lockfile.Lock) -> bool:
        """Say whether the lock names what a rollback took out of service; where its version is gone, it is taken to."""
        return any(outputs is None or outputs == _locked(lock, outputs) for outputs in self.rejected.values())

    def rejected_as(self, candidate: Mapping[str, Any]) -> str | None:
        """Name the version that a rollback took out of service and that has the outputs of this manifest."""
        outputs = output_digests(candidate)
        if self.folder is not None and self.outputs == outputs:
            return None
        same = (name for name, had in sorted(self.rejected.items()) if name == candidate["version"] or had == outputs)
        return next(same, None)

    def holds(self, candidate: Mapping[str, Any], measured: Collection[str]) -> bool:
        """Say whether the version in service differs from this manifest in nothing but what these steps measured."""
        if self.folder is None or self.manifest is None or self.edited:
            return False

        def version(described: Mapping[str, Any]) -> str:
            steps = {
                name: step | ({"digest": ""} if name in measured else {}) for name, step in described["steps"].items()
            }
            return manifest.version_of({**described, "steps": steps})

        return version(self.manifest) == version(candidate)

    def earlier(self) -> list[Standing]:
        """Read the versions that were in service before and are whole, the newest first; none that was taken out."""
        names = dict.fromkeys(move.version for move in reversed(self.promotions))
        wanted = [name for name in names if name != self.version and name not in self.rejected]
        found = []
        for name in wanted:
            folder = self.home / name
            if not folder.is_dir() or folder.is_symlink() or manifest.edited(folder):
                continue
            described = manifest.read_manifest(folder)
            if not caveats.changed(described):  # what --set changed is no measure of the recipe as written
                found.append(replace(self, folder=folder, version=name, manifest=described, edited=()))
        return found

    def require_unmoved(self) -> None:
        """Go on only while the same version is in service. Reads the link and the log, and no file of the version.

        Raises:
            Overtaken: another one was put into service, or none is any more.
        """
        now = latest.in_service(self.home)
        label = latest.label(now.name) if now is not None else None
        if label != self.version or tuple(promotions.promoted(self.home)) != self.promotions:
            raise Overtaken(f"{self.home.name}: {label or 'nothing'} was put into service meanwhile; refresh again")


def read_standing(home: Path) -> Standing:
    """Read what is in service, and hash its files."""
    folder = latest.in_service(home)
    found: Mapping[str, Any] | None = None
    if folder is not None:
        try:
            found = manifest.read_manifest(folder)
        except (OSError, ValueError, RecursionError):
            found = None
    return Standing(
        home,
        folder,
        latest.label(folder.name) if folder is not None else None,
        found,
        None if folder is None else manifest.output_digests(folder),
        () if folder is None else tuple(manifest.edited(folder)),
        tuple(promotions.promoted(home)),
        {name: manifest.output_digests(home / name) for name in promotions.rejected(home)},
    )


def output_digests(described: Mapping[str, Any]) -> dict[str, str]:
    """Map the outputs of a manifest to their digests."""
    return {name: output["digest"] for name, output in described["outputs"].items()}


def _locked(lock: lockfile.Lock, names: Collection[str]) -> dict[str, str | None]:
    return {name: lock["steps"].get(name, {}).get("output") for name in names}
