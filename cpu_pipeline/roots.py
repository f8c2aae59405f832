"""What `gc` must never collect: the steps that locks and published versions name, as long as these are there.

`Store.root_at` notes where a lock or a folder of versions is (as Nix does in gcroots/auto). One that can't be read may
name anything, so it stops a collection; one that is gone names nothing any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpu_pipeline import lock
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.store import Store, root_name
from cpu_pipeline.versions import MANIFEST, read_manifest

_DIGEST = re.compile(r"[0-9a-f]{64}")

Named = tuple[frozenset[str], frozenset[str]]
"""Keys, and digests of objects."""


@dataclass
class Roots:
    """What the roots of a store name."""

    places: list[Path] = field(default_factory=list)
    """Locks and artifacts folders that are there."""
    gone: list[Path] = field(default_factory=list)
    """Files in `roots/` whose lock or folder is not there any more."""
    keys: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)


Known = dict[Path, tuple[object, Named]]
"""Locks and manifests read already: path -> (what tells whether the file changed, what it names)."""


def read(store: Store, known: Known | None = None) -> Roots:
    """Read every root; what `known` has is read again only if it changed.

    Raises:
        RecipeError: one can't be read.
    """
    known = {} if known is None else known
    found = Roots()
    room = store.root / "roots"
    for note in sorted(room.iterdir()) if room.is_dir() else []:
        place = _place(note)
        try:
            files = _files(place)
        except (FileNotFoundError, NotADirectoryError):
            found.gone.append(note)
            continue
        except OSError as error:
            raise _stopped(place, note, str(error.strerror)) from error
        found.places.append(place)
        for path in files:
            try:
                about = path.stat()
                stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
                if path not in known or known[path][0] != stamp:
                    known[path] = (stamp, _manifest(path) if path.name == MANIFEST else _lock(path))
            except RecipeError as error:
                raise _stopped(place, note, str(error)) from error
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise _stopped(place, note, f"{path} can't be read") from error
            keys, digests = known[path][1]
            found.keys |= keys
            found.digests |= digests
    return found


def _place(note: Path) -> Path:
    try:
        text = note.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        text = ""
    if root_name(text) != note.name:
        raise RecipeError(f"{note} is damaged, and what it named might be collected: remove it if nothing is missing")
    return Path(text)


def _files(place: Path) -> Iterator[Path] | list[Path]:
    """Name the files of a root that name steps: the lock itself, or the manifest of every version."""
    place.stat()
    if not place.is_dir():
        return [place]
    versions = [path for path in place.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    return [path / MANIFEST for path in sorted(versions) if path.is_dir()]


def _lock(path: Path) -> Named:
    steps = lock.read(path)["steps"].values()
    keys = [step["key"] for step in steps if step.get("key") is not None]
    return _digests(keys), _digests([step["output"] for step in steps if step.get("output") is not None])


def _manifest(path: Path) -> Named:
    said: Any = read_manifest(path.parent)
    steps = said["steps"].values()
    digests = [*(step["digest"] for step in steps), *(each["digest"] for each in said["outputs"].values())]
    return _digests([step["key"] for step in steps]), _digests(digests)


def _digests(said: list[Any]) -> frozenset[str]:
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in said):
        raise ValueError(said)
    return frozenset(said)


def _stopped(place: Path, note: Path, says: str) -> RecipeError:
    return RecipeError(
        f"{says}\nnothing was collected, because what {place} names might go: mend it, or remove {note} to give it up"
    )
