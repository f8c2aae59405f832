"""Make a checked plan of a recipe and its pipeline. Everything that can fail early fails here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError

from cpu_pipeline import tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.graph import judged
from cpu_pipeline.graph.order import Cycle, in_order
from cpu_pipeline.graph.plan import CHECKS, FIDELITY, NOT_MODELS, Context, Node, Plan, Withheld
from cpu_pipeline.graph.problems import Problems
from cpu_pipeline.graph.source_nodes import source_nodes
from cpu_pipeline.graph.step_nodes import changed_options, make_stage, wire_steps
from cpu_pipeline.recipe.cron import parse_cron
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile, load_pipeline
from cpu_pipeline.recipe.spec import RESERVED, ROLES, Pipeline, Recipe, Step
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task


def make_plan(recipe: RecipeFile[Recipe]) -> Plan:
    """Wire the steps of a recipe into a graph, and check that everything fits.

    Args:
        recipe: the recipe, read and checked against the schema.

    Raises:
        RecipeError: every problem that was found, one a line.
        Refused: a path leads outside.
    """
    return Planner(recipe).plan()


def today() -> date:
    """Return the day, in UTC: what waivers are compared with."""
    return datetime.now(UTC).date()


def check_pipeline(pipeline: RecipeFile[Pipeline]) -> None:
    """Check that a pipeline's steps fit together, for a model that its first step takes and data of every role.

    Raises:
        RecipeError: every problem that was found, one a line.
    """
    errors = []
    for format in ("hf", "onnx", "openvino"):
        source = {"folder": ".", "format": format}
        recipe = Recipe.model_validate(
            {
                "model": source,
                "teacher": source,
                "task": {"use": tasks.names()[0]},
                "data": {role: {"file": f"{role}.jsonl"} for role in ROLES},
                "stages": pipeline.value.stages,
            }
        )
        try:
            make_plan(RecipeFile(pipeline.document, recipe))
        except RecipeError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


class Planner:
    """The work of `make_plan`: checks one part after another, and stops where the next needs what failed."""

    def __init__(self, recipe: RecipeFile[Recipe]) -> None:
        self.recipe, self.value = recipe, recipe.value
        pipeline: RecipeFile[Any] = recipe
        if self.value.pipeline is not None:
            pipeline = load_pipeline(self.value.pipeline, recipe.document)
        self.problems = Problems(recipe, pipeline)
        self.steps: list[Step] = pipeline.value.stages or []

    def plan(self) -> Plan:
        if self.value.tune is not None:
            self.problems.in_recipe(("tune",), "no stage of this version tunes; leave it out")
        self._check_schedule()
        self._check_names()
        task = self._task()
        nodes, outside = source_nodes(self.recipe)
        made = {
            step.id: stage
            for number, step in enumerate(self.steps)
            if (stage := make_stage(self.recipe, number, step, self.problems)) is not None
        }
        self._check_task(task, made)
        self._check_waivers(made)
        self.problems.raise_all()
        if any(stage.headless() for stage in made.values()):
            # transformers cannot answer rows with a model that has no head yet, so there is nothing to compare.
            nodes = {name: node for name, node in nodes.items() if name != FIDELITY}
        nodes = wire_steps(self.steps, made, nodes, self.problems, task)
        self.problems.raise_all()
        nodes = self._in_order(nodes)
        self.problems.raise_all()
        self._check_sides(nodes)
        outputs = self._outputs(nodes)
        self._check_unchecked(nodes)
        self.problems.raise_all()
        recipe, context = self.recipe, self._context(task)
        plan = Plan(recipe.name, recipe.path, self.value, nodes, outputs, context, self._resolved(), outside)
        return self._judged(plan)

    def _judged(self, plan: Plan) -> Plan:
        """Note the outputs that no gate judges; what the recipe gives no reason for is never put into service."""
        open_ones = judged.unjudged(plan.nodes, plan.outputs)
        told = self.value.unchecked
        plan = replace(plan, unchecked={name: told[name] for name in open_ones if name in told})
        untold = [name for name in open_ones if name not in told]
        if not untold:
            return plan
        names = " and ".join(f"`{name}`" for name in untold)
        example = f"{{{untold[0]}: the reason}}"
        reason = (
            f"no gate judges the answers of {names} against the float model; add one, or say `unchecked: {example}`"
        )
        return replace(plan, withheld=Withheld((reason,), "unchecked"))

    def _check_waivers(self, made: Mapping[str, Stage]) -> None:
        """Refuse a waiver whose last day is over."""
        for number, step in enumerate(self.steps):
            waiver = made[step.id].waiver() if step.id in made else None
            if waiver is None or not waiver.expired(today()):
                continue
            message = f"the waiver of `{step.id}` ended on {waiver.until.isoformat()} ({waiver.reason}); leave it out"
            if "waive" in self.value.options.get(step.id, {}):
                self.problems.in_recipe(("with", step.id, "waive"), message)
            else:
                self.problems.in_pipeline(("stages", number), message)

    def _check_sides(self, nodes: Mapping[str, Node]) -> None:
        """Refuse a gate that compares a model with itself."""
        for gate in judged.with_itself(nodes):
            same = judged.side(nodes, gate, "candidate")
            number = next(number for number, step in enumerate(self.steps) if step.id == gate.id)
            message = f"step `{gate.id}` ({gate.use}) compares `{same}` with itself; name another model as one of them"
            self.problems.in_pipeline(("stages", number), message)

    def _check_unchecked(self, nodes: Mapping[str, Node]) -> None:
        """Check that what is said to be unchecked is a step that gives a model."""
        models = [step.id for step in self.steps if nodes[step.id].gives not in NOT_MODELS]
        for name in self.value.unchecked.keys() - set(models):
            message = f"no step that gives a model is called `{name}`{did_you_mean(name, models)}"
            self.problems.in_recipe(("unchecked", name), message)

    def _check_schedule(self) -> None:
        """Check the schedule now: a wrong one would show itself only by nothing happening."""
        refresh = self.value.refresh
        if refresh is None or refresh.cron is None:
            return
        try:
            parse_cron(refresh.cron)
        except ValueError as error:
            self.problems.in_recipe(("refresh", "cron"), str(error))

    def _check_names(self) -> None:
        """Check that steps have names of their own, and that options name steps."""
        seen: dict[str, int] = {}
        for number, step in enumerate(self.steps):
            keys: Keys = ("stages", number, "id")
            if step.id in seen:
                line = self.problems.pipeline.document.where(("stages", seen[step.id], "id"))
                self.problems.in_pipeline(keys, f"two steps are called `{step.id}`; the first is at {line}")
            if step.id in RESERVED:
                message = f"`{step.id}` is the recipe's own; call the step something else"
                self.problems.in_pipeline(keys, message)
            seen.setdefault(step.id, number)
        for key in self.value.options.keys() - seen.keys():
            self.problems.in_recipe(("with", key), f"no step is called `{key}`{did_you_mean(key, seen)}")
        for key in self.recipe.sets.keys() - seen.keys():
            raise RecipeError(f"--set {key}: no step is called `{key}`{did_you_mean(key, seen)}")

    def _task(self) -> Task | None:
        use = self.value.task
        try:
            return tasks.get(use.use)(**use.options)
        except ValidationError as error:
            for detail in error.errors():
                self.problems.in_recipe(("task", "with", *detail["loc"]), detail["msg"].removeprefix("Value error, "))
            return None

    def _check_task(self, task: Task | None, made: Mapping[str, Stage]) -> None:
        """Check that options of the steps fit the task, such as the metric of a gate."""
        for number, step in enumerate(self.steps):
            for misfit in made[step.id].misfits(task) if task is not None and step.id in made else ():
                option, _, says = misfit.partition(": ")
                if option in self.value.options.get(step.id, {}):
                    self.problems.in_recipe(("with", step.id, option), f"{step.use}: {says}")
                else:
                    message = f"step `{step.id}` ({step.use}): {says}"
                    self.problems.in_pipeline(("stages", number, "with", option), message)

    def _context(self, task: Task | None) -> Context:
        target = self.value.target
        isa = host.TARGETS[target.isa] if target.isa else host.isa()
        return Context(task, self.value.task.use, isa, target.threads or host.cores(), tuple(self.value.allow))

    def _resolved(self) -> Recipe:
        """Return the recipe with its steps in place of the pipeline's name, every option merged into them."""
        resolved = []
        for step in self.steps:
            over, sets = changed_options(self.recipe, step)
            resolved.append(step.model_copy(update={"options": {**step.options, **over, **sets}}))
        return self.value.model_copy(update={"pipeline": None, "options": {}, "stages": resolved})

    def _in_order(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        try:
            return in_order(nodes)
        except Cycle as error:
            ring = [name for name in error.ring if ":" not in name]
            number = next(number for number, step in enumerate(self.steps) if step.id in ring)
            message = f"a cycle: {' → '.join(f'`{name}`' for name in ring)}"
            self.problems.in_pipeline(("stages", number), message)
            return dict(nodes)

    def _outputs(self, nodes: Mapping[str, Node]) -> tuple[str, ...]:
        """Name the steps to publish: those that the recipe names, or the models that no other model is built from."""
        ids = [step.id for step in self.steps]
        models = [name for name in ids if nodes[name].gives not in NOT_MODELS]
        if self.value.outputs is not None:
            for number, name in enumerate(self.value.outputs):
                if name not in models:
                    message = f"no step that gives a model is called `{name}`{did_you_mean(name, models)}"
                    self.problems.in_recipe(("outputs", number), message)
            found = tuple(self.value.outputs)
        else:
            used = {source for name in models for source in nodes[name].inputs.values()}
            found = tuple(name for name in models if name not in used)
        if CHECKS in found and CHECKS in models:
            message = f"`{CHECKS}` is the folder of a version for what gates measured; call the output something else"
            self.problems.in_pipeline(("stages", ids.index(CHECKS), "id"), message)
        return found
