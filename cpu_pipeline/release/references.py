"""The steps that plans, locks and published versions name: what `gc` keeps, and what `push` and `pull` move.

`Store.root_at` notes where a lock or a directory of versions is (as Nix does in gcroots/auto). One that can't be read
may name anything, so it stops a collection; one that is gone names nothing any more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import DIGEST
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import UnchangedFiles
from cpu_pipeline.engine.keys import walk
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import lockfile
from cpu_pipeline.release.manifest import ASIDE, MANIFEST, read_manifest
from cpu_pipeline.store.gc import Roots
from cpu_pipeline.store.local import Store, root_name
from cpu_pipeline.store.sync import Find, StepRef

Named = tuple[frozenset[str], frozenset[str]]
"""Keys, and digests of objects."""


def reader(store: Store) -> Callable[[], Roots]:
    """Return a function that reads the roots of a store; it reads a lock or manifest again only if that changed."""
    return partial(read_roots, store, UnchangedFiles(_named_in))


def read_roots(store: Store, named_in: Callable[[Path], Named] | None = None) -> Roots:
    """Read every root of a store.

    Args:
        store: the store.
        named_in: returns the keys and digests that a lock or a manifest names; reads the file when None.

    Raises:
        RecipeError: one can't be read.
    """
    named_in = named_in or _named_in
    found = Roots()
    directory = store.root / "roots"
    for note in sorted(directory.iterdir()) if directory.is_dir() else []:
        root = _place(note)
        try:
            files = _files(root)
        except (FileNotFoundError, NotADirectoryError):
            found.gone.append(note)
            continue
        except OSError as error:
            raise _stopped(root, note, str(error.strerror)) from error
        found.paths.append(root)
        for path in files:
            try:
                keys, digests = named_in(path)
            except RecipeError as error:
                raise _stopped(root, note, str(error)) from error
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise _stopped(root, note, f"{path} can't be read") from error
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


def _files(root: Path) -> Iterator[Path] | list[Path]:
    """Name the files of a root that name steps: the lock itself, or the manifest of every version."""
    root.stat()
    if not root.is_dir():
        return [root]
    named = [path for path in root.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    versions = [path for path in named if path.name not in ASIDE]  # those need nothing of the store
    return [path / MANIFEST for path in sorted(versions) if path.is_dir()]


def _named_in(path: Path) -> Named:
    return _manifest(path) if path.name == MANIFEST else _lock(path)


def _lock(path: Path) -> Named:
    steps = lockfile.read_lock(path)["steps"].values()
    keys = [step["key"] for step in steps if step.get("key") is not None]
    return _digests(keys), _digests([step["output"] for step in steps if step.get("output") is not None])


def _manifest(path: Path) -> Named:
    manifest: Any = read_manifest(path.parent)
    steps = manifest["steps"].values()
    digests = [*(step["digest"] for step in steps), *(each["digest"] for each in manifest["outputs"].values())]
    return _digests([step["key"] for step in steps]), _digests(digests)


def _digests(values: list[Any]) -> frozenset[str]:
    if not all(isinstance(each, str) and DIGEST.fullmatch(each) for each in values):
        raise ValueError(values)
    return frozenset(values)


def _stopped(root: Path, note: Path, message: str) -> RecipeError:
    return RecipeError(
        f"{message}\nnothing was collected, because what {root} names might go: mend it, or remove {note} to give it up"
    )


def steps_of(plans: Sequence[Plan]) -> Callable[[Find], Iterator[StepRef]] | None:
    """Return what names the steps of these plans and their locks, for `push` and `pull`; None, for all, without any."""
    return partial(_named, plans) if plans else None


def _named(plans: Iterable[Plan], find: Find) -> Iterator[StepRef]:
    """Name every step that these plans and their locks have a key for, once, as far as `find` knows their inputs."""
    seen = set[str]()
    for plan in plans:
        for step in itertools.chain(_planned(plan, find), _locked(plan)):
            if step.key not in seen:
                seen.add(step.key)
                yield step


def _planned(plan: Plan, find: Find) -> Iterator[StepRef]:
    """Name the steps of a plan as far as `find` knows their inputs."""
    for node, keyed, _ in walk(plan, lambda _, key: find(key)):
        if keyed is not None:
            yield StepRef(keyed.key, f"{plan.name}/{node.id}")


def _locked(plan: Plan) -> Iterator[StepRef]:
    """Name what the lock beside the recipe names: what is in service may differ from what would be built now."""
    path = lockfile.lock_path(plan.path)
    if path.exists():
        steps: Mapping[str, Mapping[str, str]] = lockfile.read_lock(path)["steps"]
        for name, step in steps.items():
            if "key" in step:
                yield StepRef(step["key"], f"{plan.name}/{name}")
