"""Moves what recipes come to between this store and another: all of it, or the steps of some recipes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpu_pipeline import lock
from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.engine import needs
from cpu_pipeline.graph import Plan
from cpu_pipeline.lease import leased
from cpu_pipeline.place import Folder
from cpu_pipeline.record import Action
from cpu_pipeline.remote import Remote
from cpu_pipeline.store import Store


@dataclass(frozen=True)
class Step:
    """One record that is to be moved."""

    key: str
    name: str
    """RECIPE/STEP, or the stage's name where nobody named a recipe."""
    bytes: int = 0
    """That were moved."""


Tell = Callable[[Step], None]


@dataclass
class Moved:
    """What a push or a pull came to."""

    moved: list[Step] = field(default_factory=list)
    there: list[Step] = field(default_factory=list)
    """What was at its goal already."""
    lacking: list[Step] = field(default_factory=list)
    """What a recipe or its lock names and the source has not; steps that hang on these are not known yet."""
    bytes: int = 0
    """Of what was moved."""

    def take(self, step: Step, action: Action, size: int, tell: Tell) -> None:
        """Count a step that was moved, and tell of it."""
        named = Step(step.key, step.name or str(action.ingredients.get("stage")), size)
        self.moved.append(named)
        self.bytes += size
        tell(named)


Find = Callable[[str], Artifact | None]


def push(
    store: Store, remote: Remote, plans: Sequence[Plan] = (), force: bool = False, tell: Tell = lambda _: None
) -> Moved:
    """Put into the remote what the store has of these plans and their locks, or everything when there are none.

    Raises:
        TryAgain: the remote can't be reached.
        RecipeError: it can't be written, or lies in the store; a lock can't be read.
    """
    require_apart(store, remote)
    done = Moved()
    with leased(store) as lease:
        for step in _named(plans, lease.find) if plans else _all(store.keys()):
            found, action = lease.find(step.key), store.action(step.key)
            if found is None or action is None:
                done.lacking.append(step)
            elif (files := remote.lacks(step.key, action, force)) is None:
                done.there.append(step)
            elif not store.check(found):
                done.lacking.append(step)
            else:
                remote.put(step.key, action, found.path, files)
                done.take(step, action, sum(files.values()), tell)
    return done


def pull(store: Store, remote: Remote, plans: Sequence[Plan] = (), tell: Tell = lambda _: None) -> Moved:
    """Bring into the store what the remote has of these plans and their locks, or everything when there are none.

    A plan is walked in order: what a step came to says the keys of the next ones.

    Raises:
        TryAgain: the remote can't be reached, or the disk is full.
        RecipeError: it can't be read, or lies in the store; a lock can't be read.
    """
    require_apart(store, remote)
    done = Moved()
    here = Store(store.root, remote)
    with leased(here) as lease:
        for step in _named(plans, lease.find) if plans else _all(remote.keys()):
            # That all of a remote is pulled says nothing about what is used here: what is here keeps its age.
            found, action = here.find(step.key) or lease.find(step.key), here.action(step.key)
            if found is None or action is None:
                done.lacking.append(step)
            elif step.key not in lease.brought:
                done.there.append(step)
            else:
                done.take(step, action, action.size, tell)
    return done


def require_apart(store: Store, remote: Remote) -> None:
    """Refuse a folder that is the store, lies in it, or would hold it among its own files.

    Raises:
        RecipeError: it is.
    """
    if not isinstance(remote.place, Folder):
        return
    root = remote.place.root
    here, there, *rooms = (
        Path(os.path.realpath(path))
        for path in (store.root, root, root / "actions", root / "objects", remote.place.incoming)
    )
    if any(path.is_relative_to(here) for path in (there, *rooms)) or any(here.is_relative_to(room) for room in rooms):
        raise RecipeError(f"{remote.shown} and the store {store.root} lie in each other; name a folder apart from it")


def _all(keys: Iterable[str]) -> Iterator[Step]:
    return (Step(key, "") for key in keys)


def _named(plans: Iterable[Plan], find: Find) -> Iterator[Step]:
    """Name every step that these plans and their locks have a key for, once, as far as `find` knows their inputs."""
    seen = set[str]()
    for plan in plans:
        for step in itertools.chain(_walk(plan, find), _locked(plan)):
            if step.key not in seen:
                seen.add(step.key)
                yield step


def _walk(plan: Plan, find: Find) -> Iterator[Step]:
    known: dict[str, Artifact] = {}
    for node in plan.nodes.values():
        if all(source in known for source in (*node.inputs.values(), *node.data.values())):
            key = digest_json(needs(plan, node, known))
            if (found := find(key)) is not None:
                known[node.id] = found
            yield Step(key, f"{plan.name}/{node.id}")


def _locked(plan: Plan) -> Iterator[Step]:
    """Name what the lock beside the recipe names: what is in service may differ from what would be built now."""
    place = lock.place(plan.path)
    if place.exists():
        steps: Mapping[str, Mapping[str, str]] = lock.read(place)["steps"]
        for name, step in steps.items():
            if "key" in step:
                yield Step(step["key"], f"{plan.name}/{name}")
