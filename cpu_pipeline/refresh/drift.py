"""What a recipe differs in from its lock, and what is in service from both: the reasons to refresh it."""

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
from cpu_pipeline.release import caveats, lockfile, standing
from cpu_pipeline.release.standing import Standing

TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@dataclass(frozen=True)
class DriftReport:
    """What has changed since a recipe's lock, what is in service, and what a refresh would build."""

    recipe: RecipeFile[Recipe]
    """With the newest revisions of the branches that it follows."""
    plan: Plan
    lock: lockfile.Lock | None
    standing: Standing
    """What is in service, read once for the whole refresh."""
    moves: Sequence[upstream.Move]
    causes: Sequence[str]
    """Why it is to be refreshed; empty when it is fresh."""
    ignored: Sequence[str]
    """Other changes, to which this refresh does not react."""
    rolled_back: bool
    """True when a rollback put an earlier version back into service, and it stays."""


def find_drift(
    path: Path, out: Path, only: Collection[Trigger] = (), allow_paths: Collection[Path] = ()
) -> DriftReport:
    """Find out what changed since a recipe's lock, and read what is in service. Writes nothing.

    Args:
        path: the recipe.
        out: the folder of artifacts.
        only: react to these alone, instead of the recipe's `refresh.on`.
        allow_paths: directories outside its own that the recipe may read.

    Raises:
        RecipeError: the recipe or its lock is wrong, or a branch is not there.
        TryAgain: the Hub does not answer.
    """
    recipe = load_recipe(path, allow_paths)
    wanted = recipe.value.refresh
    kinds = set(only or (wanted.on if wanted else ()) or TRIGGERS)
    path_of_lock = lockfile.lock_path(recipe.path)
    lock = lockfile.read_lock(path_of_lock) if path_of_lock.exists() else None
    drift = lockfile.drift(lock, planner.make_plan(recipe)) if lock is not None else []
    found = upstream.moves(recipe, kinds)
    if found:
        recipe, _ = upstream.moved(recipe, found)
    plan = planner.make_plan(recipe)
    causes = [move.says for move in found] + [change.cause for change in drift if change.kind in kinds]
    if lock is None:
        causes.append("it was never locked")
    now = standing.read_standing(out / plan.name)
    if changed := caveats.changed(now.manifest or {}):
        causes.append(f"what is in service was changed with --set ({', '.join(changed)})")
    back = False
    if plan.outputs and (fault := now.fault):
        causes.append(fault)
    elif plan.outputs and lock is not None:
        # An edited recipe may name other outputs: then those of the version are compared.
        edited = any(change.kind == "recipe" for change in drift)
        if difference := now.differs(lock, None if edited else plan.outputs):
            back = now.rolled_back and now.rejects(lock)
            causes += [] if back else [difference]
    ignored = [change.cause for change in drift if change.kind not in kinds]
    if causes:  # a build takes every change, not only those that were the reason for it
        causes += [f"{change} (no reason by itself)" for change in ignored]
        ignored = []
    return DriftReport(recipe, plan, lock, now, found, causes, ignored, back)
