"""From a recipe and a pipeline to a checked plan. Everything that can fail early fails here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cpu_pipeline import sources, stages, tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.graph.order import Cycle, in_order
from cpu_pipeline.graph.paths import below_recipe
from cpu_pipeline.graph.plan import APART, CHECKS, NOT_MODELS, Context, Node, Plan
from cpu_pipeline.recipe import cron
from cpu_pipeline.recipe.document import Keys, Problem
from cpu_pipeline.recipe.reader import RecipeFile, check_options, load_pipeline
from cpu_pipeline.recipe.spec import RESERVED, ROLES, Pipeline, Recipe, Step
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.tasks._base import Task

ROWS = ("split", "take", "seed", "columns", "config")
"""Keys of a data role that say which rows of its files are meant."""


def make_plan(recipe: RecipeFile[Recipe], until: str | None = None) -> Plan:
    """Wire a recipe and its pipeline together, and check that everything fits.

    Args:
        recipe: the recipe, read and checked against the schema.
        until: keep only this step and what it is made of.

    Raises:
        RecipeError: every problem that was found, one a line.
        Refused: a path leads outside.
    """
    return Planner(recipe).plan(until)


def check_pipeline(pipeline: RecipeFile[Pipeline]) -> None:
    """Check that a pipeline's steps fit together, given a model that its first step takes and every kind of data.

    Raises:
        RecipeError: every problem that was found, one a line.
    """
    errors = []
    for made in ("hf", "onnx", "openvino"):
        place = {"folder": ".", "format": made}
        recipe = Recipe.model_validate(
            {
                "model": place,
                "teacher": place,
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
    """The work of `plan`: collects problems on the way."""

    def __init__(self, recipe: RecipeFile[Recipe]) -> None:
        self.recipe = recipe
        self.value = recipe.value
        self.nodes: dict[str, Node] = {}
        self.problems: list[tuple[RecipeFile[Any], Problem]] = []
        self.pipeline: RecipeFile[Any] = recipe
        if self.value.pipeline is not None:
            self.pipeline = load_pipeline(self.value.pipeline, recipe.document)

    def plan(self, until: str | None) -> Plan:
        if self.value.tune is not None:
            self._problem(("tune",), "no stage of this version tunes; leave it out")
        self._schedule()
        steps: list[Step] = self.pipeline.value.stages or []
        self._names(steps)
        task = self._task()
        self._sources()
        wired = {step.id: stage for i, step in enumerate(steps) if (stage := self._stage(i, step)) is not None}
        self._stop_on_problems()
        self._wire(steps, wired)
        self._stop_on_problems()
        self._sort(steps)
        self._stop_on_problems()
        target = self.value.target
        isa = host.TARGETS[target.isa] if target.isa else host.isa()
        context = Context(task, self.value.task.use, isa, target.threads or host.cores(), tuple(self.value.allow))
        outputs, resolved = self._outputs(steps), self._resolved(steps)
        made = Plan(self.recipe.name, self.recipe.path, self.value, self.nodes, outputs, context, resolved)
        self._stop_on_problems()
        return made if until is None else made.until(until)

    def _schedule(self) -> None:
        """Check the schedule now: a wrong one would be found out only by nothing happening."""
        refresh = self.value.refresh
        if refresh is None or refresh.cron is None:
            return
        try:
            cron.read(refresh.cron)
        except ValueError as error:
            self._problem(("refresh", "cron"), str(error))

    def _problem(self, keys: Keys, says: str, paper: RecipeFile[Any] | None = None) -> None:
        self.problems.append((paper or self.recipe, Problem(keys, says)))

    def _stop_on_problems(self) -> None:
        if self.problems:
            papers = {id(paper): paper for paper, _ in self.problems}
            texts = [
                str(paper.document.error(problem for owner, problem in self.problems if owner is paper))
                for paper in papers.values()
            ]
            raise RecipeError("\n".join(texts))

    def _names(self, steps: list[Step]) -> None:
        seen: dict[str, int] = {}
        for number, step in enumerate(steps):
            here: Keys = ("stages", number, "id")
            if step.id in seen:
                line = self.pipeline.document.where(("stages", seen[step.id], "id"))
                self._problem(here, f"two steps are called `{step.id}`; the first is at {line}", self.pipeline)
            if step.id in RESERVED:
                self._problem(here, f"`{step.id}` is the recipe's own; call the step something else", self.pipeline)
            seen.setdefault(step.id, number)
        for key in self.value.options.keys() - seen.keys():
            self._problem(("with", key), f"no step is called `{key}`{did_you_mean(key, seen)}")
        for key in self.recipe.sets.keys() - seen.keys():
            raise RecipeError(f"--set {key}: no step is called `{key}`{did_you_mean(key, seen)}")

    def _task(self) -> Task | None:
        use = self.value.task
        try:
            return tasks.get(use.use)(**use.options)
        except ValidationError as error:
            for one in error.errors():
                self._problem(("task", "with", *one["loc"]), one["msg"])
            return None

    def _sources(self) -> None:
        if self.value.tokenizer is not None:
            self._fetch("tokenizer", "tokenizer", self.value.tokenizer)
        for role in ("model", "teacher"):
            if (place := getattr(self.value, role)) is not None:
                files = self._fetch(role, "model", place)
                inputs = {"files": files}
                if self.value.tokenizer is not None and role == "model":
                    inputs["tokenizer"] = "tokenizer:files"
                stage = stages.get("load.model")(**{"format": place.get("format", "hf")})
                self._add(Node(role, "load.model", stage, inputs, where=self.recipe.document.where((role,))))
        for role, place in self.value.data.items():
            options = {k: v for k, v in place.items() if k in ROWS}
            files = self._fetch(f"data.{role}", "data", {k: v for k, v in place.items() if k not in options}, options)
            stage = stages.get("load.rows")(**{**options, "role": role})
            where = self.recipe.document.where(("data", role))
            self._add(Node(f"data.{role}", "load.rows", stage, {"files": files}, where=where))
        if len(self.value.data) > 1:
            rows = {str(role): f"data.{role}" for role in self.value.data}
            where = self.recipe.document.where(("data",))
            self._add(Node(APART, "load.apart", stages.get("load.apart")(), rows, where=where))

    def _fetch(self, name: str, want: str, place: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> str:
        keys: Keys = tuple(name.split("."))
        source = next(s for s in sources.names(want) if s in place)
        fields = dict(place)
        for key in ("folder", "file", "media"):
            if key in fields:
                fields[key] = below_recipe(fields[key], (*keys, key), self.recipe)
        fields |= {k: v for k, v in (options or {}).items() if k in sources.get(source).model_fields}
        stage = stages.get("fetch")(**{"source": source, "fields": fields, "want": want})
        for node in self.nodes.values():
            if node.use == "fetch" and node.stage == stage:
                return node.id
        return self._add(Node(f"{name}:files", "fetch", stage, where=self.recipe.document.where(keys)))

    def _add(self, node: Node) -> str:
        self.nodes[node.id] = node
        return node.id

    def _stage(self, number: int, step: Step) -> Stage | None:
        cls = stages.get(step.use)
        over, sets = self._changes(step)
        problems = check_options(step.use, over, ("with", step.id))
        self.problems += [(self.recipe, p) for p in problems]
        for problem in check_options(step.use, sets, ("--set", step.id)):
            raise RecipeError(f"{'.'.join(map(str, problem.keys)).replace('--set.', '--set ')}: {problem.says}")
        if problems:
            return None
        try:
            return cls(**{**step.options, **over, **sets})
        except ValidationError as error:
            for one in error.errors():
                key = str(one["loc"][0]) if one["loc"] else ""
                says = one["msg"].removeprefix("Value error, ")
                if key in over or (not key and over):
                    self._problem(("with", step.id, *one["loc"]), f"{step.use}: {says}")
                else:
                    keys: Keys = ("stages", number, "with", *one["loc"])
                    self._problem(keys, f"step `{step.id}` ({step.use}): {says}", self.pipeline)
            return None

    def _changes(self, step: Step) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return what the recipe's `with:` and --set say of a step, the stronger last."""
        return self.value.options.get(step.id, {}), self.recipe.sets.get(step.id, {})

    def _resolved(self, steps: list[Step]) -> Recipe:
        resolved = []
        for step in steps:
            over, sets = self._changes(step)
            resolved.append(step.model_copy(update={"options": {**step.options, **over, **sets}}))
        return self.value.model_copy(update={"pipeline": None, "options": {}, "stages": resolved})

    def _wire(self, steps: list[Step], wired: Mapping[str, Stage]) -> None:
        known: dict[str, str] = {n.id: n.gives for n in self.nodes.values() if n.use == "load.model"}
        known |= {step.id: wired[step.id].gives() for step in steps}
        order = [n.id for n in self.nodes.values()]
        loads = tuple(name for name in (APART,) if name in order) or tuple(n for n in order if n.startswith("data."))
        previous = "model"
        for number, step in enumerate(steps):
            stage = wired[step.id]
            inputs = self._inputs(number, step, stage, previous, known)
            self._add(
                Node(
                    step.id,
                    step.use,
                    stage,
                    {name: self._between(number, step, stage, name, source) for name, source in inputs.items()},
                    self._data(number, step, stage),
                    ("model", *loads) if "model" in known else loads,
                    step.timeout,
                    self.pipeline.document.where(("stages", number, "id")),
                )
            )
            if stage.gives() not in NOT_MODELS:
                previous = step.id

    def _inputs(self, number: int, step: Step, stage: Stage, previous: str, known: Mapping[str, str]) -> dict[str, str]:
        here: Keys = ("stages", number)
        given = {**dict.fromkeys(list(stage.takes)[:1], previous), **step.sources}
        for name in step.sources.keys() - stage.takes.keys():
            takes = f"; it takes {', '.join(stage.takes)}" if stage.takes else "; it takes nothing"
            self._problem((*here, "from", name), f"{step.use} has no input `{name}`{takes}", self.pipeline)
        for name in stage.takes.keys() - given.keys() - stage.optional:
            self._problem(here, f"step `{step.id}` ({step.use}) needs `from: {{{name}: ...}}`", self.pipeline)
        fitting: dict[str, str] = {}
        for name, source in given.items():
            keys: Keys = (*here, "from", name) if name in step.sources else (*here, "use")
            if source not in known:
                self._problem(keys, f"no step is called `{source}`{did_you_mean(source, known)}", self.pipeline)
            elif source == step.id:
                self._problem(keys, f"step `{step.id}` feeds itself", self.pipeline)
            elif name in stage.takes and known[source] not in stage.takes[name]:
                wanted = " or ".join(sorted(stage.takes[name]))
                says = f"step `{step.id}` ({step.use}) takes `{name}` as {wanted}, but `{source}` gives {known[source]}"
                self._problem(keys, says, self.pipeline)
            else:
                fitting[name] = source
        return fitting

    def _between(self, number: int, step: Step, stage: Stage, name: str, source: str) -> str:
        """Put the stage that `through` names between, once per source, whoever asks."""
        if name not in stage.through:
            return source
        use = stage.through[name]
        node_id = f"{use}:{source}"
        if node_id not in self.nodes:
            between = stages.get(use)()
            first = next(iter(between.takes))
            data = self._data(number, step, between)
            after = tuple(n for n in (APART,) if n in self.nodes)
            self._add(Node(node_id, use, between, {first: source}, data, after, where=self.recipe.document.where(())))
        return node_id

    def _data(self, number: int, step: Step, stage: Stage) -> dict[str, str]:
        """Wire the rows that a stage reads; `step` is the one it is there for."""
        found = {}
        for part in sorted(p.removeprefix("data.") for p in stage.asks() if p.startswith("data.")):
            role = part.rstrip("?")
            if f"data.{role}" in self.nodes:
                found[role] = f"data.{role}"
            elif not part.endswith("?"):
                at = self.pipeline.document.where(("stages", number, "id"))
                self._problem((), f"`data.{role}` is missing; step `{step.id}` ({step.use}, {at}) needs it")
        return found

    def _sort(self, steps: list[Step]) -> None:
        try:
            self.nodes = in_order(self.nodes)
        except Cycle as error:
            ring = [name for name in error.ring if ":" not in name]
            number = next(i for i, step in enumerate(steps) if step.id in ring)
            self._problem(("stages", number), f"a cycle: {' → '.join(f'`{n}`' for n in ring)}", self.pipeline)

    def _outputs(self, steps: list[Step]) -> tuple[str, ...]:
        ids = [step.id for step in steps]
        models = [n for n in ids if self.nodes[n].gives not in NOT_MODELS]
        if self.value.outputs is not None:
            for number, name in enumerate(self.value.outputs):
                if name not in models:
                    says = f"no step that gives a model is called `{name}`{did_you_mean(name, models)}"
                    self._problem(("outputs", number), says)
            found = tuple(self.value.outputs)
        else:
            used = {source for n in models for source in self.nodes[n].inputs.values()}
            found = tuple(n for n in models if n not in used)
        if CHECKS in found and CHECKS in models:
            says = f"`{CHECKS}` is the folder of a version for what gates measured; call the output something else"
            self._problem(("stages", ids.index(CHECKS), "id"), says, self.pipeline)
        return found
