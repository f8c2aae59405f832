"""How a recipe stands: what has moved since its lock, and whether what is in service is what the lock says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe.reader import RecipeFile, load_recipe
from cpu_pipeline.recipe.spec import Recipe, Trigger
from cpu_pipeline.refresh import upstream
from cpu_pipeline.release import lockfile, promotions
from cpu_pipeline.release.standing import differs, rejects, wrong

TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@dataclass(frozen=True)
class DriftReport:
    """How a recipe stands: what has moved since its lock, and what a refresh would build."""

    recipe: RecipeFile[Recipe]
    """As it would read after the followed branches' moves."""
    plan: Plan
    held: lockfile.Lock | None
    moves: Sequence[upstream.Move]
    causes: Sequence[str]
    """Why it is to be refreshed; nothing when it is fresh."""
    ignored: Sequence[str]
    """What has moved too, and is none of what this refresh reacts to."""
    rolled_back: bool
    """True when somebody has put an earlier version back into service by hand."""


def find_drift(path: Path, out: Path, only: Collection[Trigger] = ()) -> DriftReport:
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
    place = lockfile.place(recipe.path)
    held = lockfile.read(place) if place.exists() else None
    drift = lockfile.drift(held, planner.make_plan(recipe)) if held is not None else []
    found = upstream.moves(recipe, kinds)
    if found:
        recipe, _ = upstream.moved(recipe, found)
    plan = planner.make_plan(recipe)
    causes = [move.says for move in found] + [one.cause for one in drift if one.kind in kinds]
    if held is None:
        causes.append("it was never locked")
    home = out / plan.name
    order = promotions.promoted(home)
    back = False
    if plan.outputs and (fault := wrong(home)):
        causes.append(fault)
    elif plan.outputs and held is not None:
        # Where the recipe was edited since, its outputs may be others: those of the version are looked at.
        edited = any(one.kind == "recipe" for one in drift)
        if other := differs(home, held, None if edited else plan.outputs):
            back = bool(order) and order[-1].by == "rollback" and rejects(home, held)
            causes += [] if back else [other]
    ignored = [one.cause for one in drift if one.kind not in kinds]
    if causes:  # what is built is built of all that is here
        causes += [f"{says} (no reason by itself)" for says in ignored]
        ignored = []
    return DriftReport(recipe, plan, held, found, causes, ignored, back)
