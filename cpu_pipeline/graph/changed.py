"""What --set changed of a recipe: a value that the recipe has anyway changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.graph.sets import DATA
from cpu_pipeline.recipe.reader import RecipeFile
from cpu_pipeline.recipe.spec import Recipe


def plan_with_sets(loaded: RecipeFile[Recipe]) -> Plan:
    """Plan a recipe; note in the plan what options of the command line changed of it.

    Raises:
        RecipeError: steps, formats or options do not fit.
        Refused: a path leads outside.
    """
    plan = planner.make_plan(loaded)
    if loaded.as_written is None:
        return plan
    try:
        written = planner.make_plan(loaded.as_written)
    except RecipeError:  # the recipe is wrong without them
        return replace(plan, sets=tuple(_shown(loaded, None, plan)))
    if _meaning(written) == _meaning(plan):
        return written
    return replace(plan, sets=tuple(_shown(loaded, written, plan)) or tuple(_shown(loaded, None, plan)))


def _meaning(plan: Plan) -> object:
    steps = {
        name: [node.use, node.stage.model_dump(mode="json"), dict(node.inputs), dict(node.data), node.timeout]
        for name, node in plan.nodes.items()
    }
    return [steps, plan.outputs]


def _shown(loaded: RecipeFile[Recipe], written: Plan | None, plan: Plan) -> Iterator[str]:
    """Write each option that differs from the plan of the recipe as written; every option where there is none."""
    for name, options in loaded.given.items():
        for option, value in options.items():
            if written is None or _value(plan, name, option) != _value(written, name, option):
                yield f"{name}.{option}={value}"


def _value(plan: Plan, name: str, option: str) -> Any:
    if name.startswith(DATA):
        return next((d.get(option) for role, d in plan.recipe.data.items() if role == name.removeprefix(DATA)), None)
    return getattr(plan.nodes[name].stage, option, None)
