"""How a recipe stands: what has moved since its lock, and whether what is in service is what the lock says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cpu_pipeline import follow, lock, versions
from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe.reader import RecipeFile, load_recipe
from cpu_pipeline.recipe.spec import Recipe, Trigger

TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@dataclass(frozen=True)
class Survey:
    """How a recipe stands: what has moved since its lock, and what a refresh would build."""

    recipe: RecipeFile[Recipe]
    """As it would read after the followed branches' moves."""
    plan: Plan
    held: lock.Lock | None
    moves: Sequence[follow.Move]
    causes: Sequence[str]
    """Why it is to be refreshed; nothing when it is fresh."""
    ignored: Sequence[str]
    """What has moved too, and is none of what this refresh reacts to."""
    rolled_back: bool
    """True when somebody has put an earlier version back into service by hand."""


def survey(path: Path, out: Path, only: Collection[Trigger] = ()) -> Survey:
    """Say how a recipe stands; writes nothing.

    Args:
        path: the recipe.
        out: the folder of artifacts.
        only: react to these alone, whatever the recipe's `refresh.on` says.

    Raises:
        RecipeError: the recipe or its lock is wrong, or a branch is not there.
        TryAgain: the Hub does not answer.
    """
    recipe = load_recipe(path)
    wanted = recipe.value.refresh
    kinds = set(only or (wanted.on if wanted else ()) or TRIGGERS)
    place = lock.place(recipe.path)
    held = lock.read(place) if place.exists() else None
    drift = lock.drift(held, planner.make_plan(recipe)) if held is not None else []
    found = follow.moves(recipe, kinds)
    if found:
        recipe, _ = follow.moved(recipe, found)
    plan = planner.make_plan(recipe)
    causes = [move.says for move in found] + [one.cause for one in drift if one.kind in kinds]
    if held is None:
        causes.append("it was never locked")
    home = out / plan.name
    order = versions.promoted(home)
    back = False
    if plan.outputs and (wrong := _wrong(home)):
        causes.append(wrong)
    elif plan.outputs and held is not None:
        # Where the recipe was edited since, its outputs may be others: those of the version are looked at.
        edited = any(one.kind == "recipe" for one in drift)
        if other := _differs(home, held, None if edited else plan.outputs):
            back = bool(order) and order[-1].by == "rollback" and _rejects(home, held)
            causes += [] if back else [other]
    ignored = [one.cause for one in drift if one.kind not in kinds]
    if causes:  # what is built is built of all that is here
        causes += [f"{says} (no reason by itself)" for says in ignored]
        ignored = []
    return Survey(recipe, plan, held, found, causes, ignored, back)


def _wrong(home: Path) -> str | None:
    """Say what is wrong with what is in service, whatever the lock says."""
    version = versions.in_service(home)
    if version is None:
        return f"nothing is in service in {home}"
    if changed := versions.edited(version):
        return f"{version} is in service and was edited ({', '.join(changed[:5])})"
    return None


def _differs(home: Path, held: lock.Lock, names: Collection[str] | None) -> str | None:
    """Say that the version in service is not what the lock says: of these outputs, or of the version's own."""
    version = home / (versions.latest(home) or "")
    outputs = versions.puts_out(version) or {}
    locked = _locked(held, outputs if names is None else names)
    return None if outputs == locked else f"{version} is in service, and is not what the lock says"


def _rejects(home: Path, held: lock.Lock) -> bool:
    """Say whether the lock names what a rollback took out of service; where its version is gone, it is taken to."""
    for name in versions.rejected(home):
        outputs = versions.puts_out(home / name)
        if outputs is None or outputs == _locked(held, outputs):
            return True
    return False


def _locked(held: lock.Lock, names: Collection[str]) -> dict[str, str | None]:
    return {name: held["steps"].get(name, {}).get("output") for name in names}
