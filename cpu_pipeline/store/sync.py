"""Pushes and pulls records and objects between this store and another: all of them, or the steps of some recipes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.record import Action
from cpu_pipeline.store.remote.client import Remote
from cpu_pipeline.store.remote.transport_folder import FolderTransport


@dataclass(frozen=True)
class StepRef:
    """One record that is to be moved."""

    key: str
    """Key of the step."""
    name: str
    """RECIPE/STEP, or the stage's name where nobody named a recipe."""
    bytes: int = 0
    """That were moved."""


Tell = Callable[[StepRef], None]


@dataclass
class Moved:
    """The outcome of a push or a pull."""

    moved: list[StepRef] = field(default_factory=list)
    present: list[StepRef] = field(default_factory=list)
    """What was at its goal already."""
    missing: list[StepRef] = field(default_factory=list)
    """Named by a recipe or its lock, and missing in the source; steps that depend on these are unknown yet."""
    bytes: int = 0
    """Bytes that were copied."""

    def take(self, step: StepRef, action: Action, size: int, tell: Tell) -> None:
        """Count a step that was moved, and tell of it."""
        named = StepRef(step.key, step.name or str(action.ingredients.get("stage")), size)
        self.moved.append(named)
        self.bytes += size
        tell(named)


Find = Callable[[str], Artifact | None]

Steps = Callable[[Find], Iterator[StepRef]]
"""Names the steps to copy; the output of a step, which it looks up, decides the keys of the next ones."""


def push(
    store: Store, remote: Remote, steps: Steps | None = None, *, force: bool = False, tell: Tell = lambda _: None
) -> Moved:
    """Copy what the store has of these steps into the remote, or everything when none are named.

    Args:
        store: the source.
        remote: the target.
        steps: names the steps; all records when None.
        force: replace what the remote has.
        tell: called with each step that was copied.

    Raises:
        TryAgain: the remote can't be reached.
        RecipeError: it can't be written, or is inside the store; a lock can't be read.
    """
    require_apart(store, remote)
    done = Moved()
    with leased(store) as lease:
        for step in steps(lease.find) if steps else _all(store.keys()):
            found = lease.find(step.key)
            if found is None:
                done.missing.append(step)
            elif (files := remote.lacks(step.key, found.record, force)) is None:
                done.present.append(step)
            elif not store.check(found):
                done.missing.append(step)
            else:
                remote.put(step.key, found.record, found.path, files)
                done.take(step, found.record, sum(files.values()), tell)
    return done


def pull(store: Store, remote: Remote, steps: Steps | None = None, tell: Tell = lambda _: None) -> Moved:
    """Copy what the remote has of these steps into the store, or everything when none are named.

    Args:
        store: the target.
        remote: the source.
        steps: names the steps; all records when None.
        tell: called with each step that was copied.

    Raises:
        TryAgain: the remote can't be reached, or the disk is full.
        RecipeError: it can't be read, or is inside the store; a lock can't be read.
    """
    require_apart(store, remote)
    done = Moved()
    local = Store(store.root, remote)
    with leased(local) as lease:
        for step in steps(lease.find) if steps else _all(remote.keys()):
            # That all of a remote is pulled says nothing about what is used here: what is here keeps its age.
            found = local.find(step.key) or lease.find(step.key)
            if found is None:
                done.missing.append(step)
            elif step.key not in lease.brought:
                done.present.append(step)
            else:
                done.take(step, found.record, found.record.size, tell)
    return done


def require_apart(store: Store, remote: Remote) -> None:
    """Refuse a directory that is the store, is inside it, or would have it among its own files.

    Raises:
        RecipeError: it is.
    """
    if not isinstance(remote.transport, FolderTransport):
        return
    root = remote.transport.root
    local, other, *folders = (
        Path(os.path.realpath(path))
        for path in (store.root, root, root / "actions", root / "objects", remote.transport.incoming)
    )
    if any(path.is_relative_to(local) for path in (other, *folders)) or any(
        local.is_relative_to(folder) for folder in folders
    ):
        raise RecipeError(f"{remote.shown} and the store {store.root} lie in each other; name a folder apart from it")


def _all(keys: Iterable[str]) -> Iterator[StepRef]:
    return (StepRef(key, "") for key in keys)
