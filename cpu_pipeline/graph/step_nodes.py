"""The nodes of a pipeline's steps: options merged, inputs and data wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from cpu_pipeline import stages
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.graph.looks import in_parts
from cpu_pipeline.graph.plan import APART, FIDELITY, NOT_MODELS, Node
from cpu_pipeline.graph.problems import Problems
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile, check_options
from cpu_pipeline.recipe.spec import Recipe, Step
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task

VALIDATION = "data.validation"


def changed_options(recipe: RecipeFile[Recipe], step: Step) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the options that the recipe's `with:` sets for a step, and those of --set, which win."""
    return recipe.value.options.get(step.id, {}), recipe.sets.get(step.id, {})


def make_stage(recipe: RecipeFile[Recipe], number: int, step: Step, problems: Problems) -> Stage | None:
    """Make the stage of a step with its options; None where they are wrong.

    Args:
        recipe: the recipe, which may change options of the step.
        number: the position of the step in its pipeline, from 0.
        step: the step.
        problems: takes what is wrong with the options of the recipe and the pipeline.

    Raises:
        RecipeError: an option of --set is wrong.
    """
    over, sets = changed_options(recipe, step)
    wrong = check_options(step.use, over, ("with", step.id))
    problems.extend(wrong)
    for problem in check_options(step.use, sets, ("--set", step.id)):
        raise RecipeError(f"{'.'.join(map(str, problem.keys)).replace('--set.', '--set ')}: {problem.says}")
    if wrong:
        return None
    try:
        waive = {} if step.waive is None else {"waive": step.waive}
        return stages.get(step.use)(**{**step.options, **waive, **over, **sets})
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0]) if detail["loc"] else ""
            message = detail["msg"].removeprefix("Value error, ")
            if key in over or (not key and over):
                problems.in_recipe(("with", step.id, *detail["loc"]), f"{step.use}: {message}")
            else:
                keys: Keys = ("stages", number, "with", *detail["loc"])
                problems.in_pipeline(keys, f"step `{step.id}` ({step.use}): {message}")
        return None


def wire_steps(
    steps: Sequence[Step],
    made: Mapping[str, Stage],
    nodes: Mapping[str, Node],
    problems: Problems,
    task: Task | None = None,
) -> dict[str, Node]:
    """Make the nodes of the steps, in the order of the file; an input of the model is the step before, unless named.

    Args:
        steps: the steps of the pipeline.
        made: step id -> its stage.
        nodes: the nodes of the sources.
        problems: takes what does not fit.
        task: the recipe's task.

    Returns:
        `nodes`, the steps, and the internal nodes between them.
    """
    wiring = _Wiring(steps, made, _beside(nodes, made, task), problems)
    wiring.task = task
    previous = "model"
    for number, step in enumerate(steps):
        wiring.add(number, step, previous)
        if made[step.id].gives() not in NOT_MODELS:
            previous = step.id
    return wiring.nodes


def _beside(nodes: Mapping[str, Node], made: Mapping[str, Stage], task: Task | None) -> dict[str, Node]:
    """Let the validation rows keep the columns that a gate divides them by."""
    columns = sorted({column for stage in made.values() for column in stage.columns_read(task)})
    if not columns or VALIDATION not in nodes:
        return dict(nodes)
    node = nodes[VALIDATION]
    stage = type(node.stage)(**{**node.stage.model_dump(exclude_unset=True), "beside": tuple(columns)})
    return {**nodes, VALIDATION: replace(node, stage=stage)}


class _Wiring:
    """The work of `wire_steps`."""

    def __init__(
        self, steps: Sequence[Step], made: Mapping[str, Stage], nodes: Mapping[str, Node], problems: Problems
    ) -> None:
        self.made, self.nodes, self.problems = made, dict(nodes), problems
        self.task: Task | None = None
        self.formats = {node.id: node.gives for node in nodes.values() if node.use == "load.model"}
        """Name that `from` may have -> its format."""
        self.formats |= {step.id: made[step.id].gives() for step in steps}
        rows = (APART,) if APART in nodes else tuple(name for name in nodes if name.startswith("data."))
        self.first = (*(name for name in ("model", FIDELITY) if name in nodes), *rows)
        """Nodes that have to succeed before any step runs: they are cheap and may refuse the recipe."""

    def add(self, number: int, step: Step, previous: str) -> None:
        """Add the node of a step.

        Args:
            number: the position of the step in its pipeline, from 0.
            step: the step.
            previous: the model that it takes by default.
        """
        inputs = self._inputs(number, step, previous)
        stage = self.made[step.id]
        parted = stage.looks() > 1
        node = Node(
            step.id,
            step.use,
            stage,
            {} if parted else {name: self._through(number, step, name, source) for name, source in inputs.items()},
            self._data(number, step, stage),
            self.first,
            step.timeout,
            self.problems.pipeline.document.where(("stages", number, "id")),
        )
        if parted and inputs.keys() == stage.takes.keys():
            self.nodes |= in_parts(node, inputs, self._predicting("", number, step, "predict", {}), self.task)
        else:
            self.nodes[step.id] = node

    def _inputs(self, number: int, step: Step, previous: str) -> dict[str, str]:
        """Return input name -> source, of the inputs that fit."""
        stage, keys = self.made[step.id], ("stages", number)
        named = {**dict.fromkeys(list(stage.takes)[:1], previous), **step.sources}
        for name in step.sources.keys() - stage.takes.keys():
            takes = f"; it takes {', '.join(stage.takes)}" if stage.takes else "; it takes nothing"
            self.problems.in_pipeline((*keys, "from", name), f"{step.use} has no input `{name}`{takes}")
        for name in stage.takes.keys() - named.keys() - stage.optional:
            self.problems.in_pipeline(keys, f"step `{step.id}` ({step.use}) needs `from: {{{name}: ...}}`")
        fitting: dict[str, str] = {}
        for name, source in named.items():
            if (problem := self._misfit(step, name, source)) is None:
                fitting[name] = source
            else:
                self.problems.in_pipeline((*keys, "from", name) if name in step.sources else (*keys, "use"), problem)
        return fitting

    def _misfit(self, step: Step, name: str, source: str) -> str | None:
        """Say why a source does not fit an input; None where it fits."""
        takes = self.made[step.id].takes
        if source not in self.formats:
            return f"no step is called `{source}`{did_you_mean(source, self.formats)}"
        if source == step.id:
            return f"step `{step.id}` feeds itself"
        if name in takes and self.formats[source] not in takes[name]:
            wanted = " or ".join(sorted(takes[name]))
            return (
                f"step `{step.id}` ({step.use}) takes `{name}` as {wanted}, but `{source}` gives {self.formats[source]}"
            )
        return None

    def _through(self, number: int, step: Step, name: str, source: str) -> str:
        """Put the internal stage that `Stage.through` names between a source and an input, once for each source."""
        through = self.made[step.id].through
        if name not in through:
            return source
        use = through[name]
        node_id = f"{use}:{source}"
        if node_id not in self.nodes:
            taken = next(iter(stages.get(use).takes))
            self.nodes[node_id] = self._predicting(node_id, number, step, use, {taken: source})
        return node_id

    def _predicting(self, node_id: str, number: int, step: Step, use: str, inputs: Mapping[str, str]) -> Node:
        """Make an internal node that stands between a source and an input."""
        stage = stages.get(use)()
        return Node(
            node_id,
            use,
            stage,
            inputs,
            self._data(number, step, stage),
            tuple(name for name in (APART, FIDELITY) if name in self.nodes),
            where=self.problems.recipe.document.where(()),
        )

    def _data(self, number: int, step: Step, stage: Stage) -> dict[str, str]:
        """Wire the rows that a stage reads, for the sake of a step."""
        found = {}
        for part in sorted(p.removeprefix("data.") for p in stage.asks() if p.startswith("data.")):
            role = part.rstrip("?")
            if f"data.{role}" in self.nodes:
                found[role] = f"data.{role}"
            elif not part.endswith("?"):
                at = self.problems.pipeline.document.where(("stages", number, "id"))
                message = f"`data.{role}` is missing; step `{step.id}` ({step.use}, {at}) needs it"
                self.problems.in_recipe((), message)
        return found
