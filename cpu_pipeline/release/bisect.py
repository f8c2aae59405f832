"""Compare every model of a graph with the one before it: which step lost how much, and what it bought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cpu_pipeline import stages
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import write_file, writing
from cpu_pipeline.core.markdown import escape, table
from cpu_pipeline.core.text import did_you_mean, size
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import APART, FIDELITY, NOT_MODELS, Node, Plan
from cpu_pipeline.release.tree import REPORT, home_of, make_home

FOLDER, JSON = "bisect", "bisect.json"
RIGHT, FAST = "bisect:right:", "bisect:fast:"
"""What the ids of the comparisons begin with; the step follows."""
HEAD = ("step", "stage", "before", "value", "difference", "times as fast", "size")


@dataclass(frozen=True)
class BisectedStep:
    """One model beside the one before it."""

    step: str
    """The step that made it."""
    use: str
    """Its stage."""
    before: str
    """The model that it was built from."""
    value: float | None
    """Its metric, as a fraction; null where it is not defined."""
    value_before: float | None
    """The metric of the model before, on the same rows."""
    difference: float | None
    """Its metric less that of the model before."""
    low: float | None
    """Lower end of the interval of the difference."""
    high: float | None
    """Upper end of it."""
    speedup: float | None
    """How many times as fast as the model before; null where it was not measured."""
    speedup_low: float | None
    """Lower end of the interval of the speed-up."""
    speedup_high: float | None
    """Upper end of it."""
    size: int
    """Bytes of its files."""
    size_before: int
    """Bytes of the files of the model before."""
    verdict: Literal["lost", "won", "uncertain"]
    """Whether the interval shows a loss, a gain, or neither."""


@dataclass(frozen=True)
class Bisection:
    """Where a metric was lost."""

    recipe: str
    """Name of the recipe."""
    metric: str
    """The metric."""
    better: Literal["higher", "lower"]
    """Whether more of it is better, or less."""
    role: Literal["selection", "validation"]
    """The recipe's rows that were answered."""
    rows: int
    """How many they are."""
    confidence: float
    """Level of the intervals, 0 to 1."""
    steps: Sequence[BisectedStep]
    """Every model that has one before it, in the order of the graph."""
    worst: str | None
    """The step that lost most of those that certainly lost; null where none did."""

    @property
    def says(self) -> str:
        """Say where it was lost, in a sentence."""
        if self.worst is None:
            return f"no step certainly lost {self.metric}"
        found = next(step for step in self.steps if step.step == self.worst)
        return f"`{found.step}` lost most: {self.metric} {_difference(found)}"


def make_plan(planned: Plan, metric: str | None = None, step: str | None = None, *, measure: bool = True) -> Plan:
    """Return a plan that compares models with those before them, and puts nothing out.

    Args:
        planned: the recipe's plan.
        metric: the metric; the task's usual one when None.
        step: the last model; every model when None.
        measure: whether to time them, too.

    Raises:
        RecipeError: there are no rows, no such metric, or no such model.
    """
    task = planned.context.task
    role = next((role for role in ("selection", "validation") if f"data.{role}" in planned.nodes), None)
    if task is None or role is None:
        raise RecipeError(
            f"{planned.path}: bisect needs rows with right answers: `data.selection` or `data.validation`"
        )
    if metric is not None and not task.has_metric(metric):
        known = task.metrics_of()
        raise RecipeError(f"--metric {metric}: no such metric{did_you_mean(metric, known)}; it has: {', '.join(known)}")
    pairs = _pairs(planned, step)
    nodes = dict(planned.nodes)
    wanted = set[str]()
    for model, before in pairs:
        predicted = [_predict(nodes, name, role) for name in (model, before)]
        accuracy = stages.get("validate.accuracy")(**{"max_drop": 0.01, "min_rows": 1})
        found = _compare(nodes, f"{RIGHT}{model}", "validate.accuracy", accuracy, predicted, role)
        wanted.add(found)
        if measure:
            speed = stages.get("validate.latency")(**{"min_speedup": 1.0})
            wanted.add(_compare(nodes, f"{FAST}{model}", "validate.latency", speed, (model, before), role))
    whole = replace(planned, nodes=nodes, outputs=(), withheld=None)
    kept = {name for each in wanted for name in whole.until(each).nodes}
    part = {
        name: replace(node, after=tuple(each for each in node.after if each in kept))
        for name, node in nodes.items()
        if name in kept
    }
    return replace(whole, nodes=part)


def _pairs(planned: Plan, step: str | None) -> list[tuple[str, str]]:
    """List the models with the one that each was made of; only what leads to `step`, if it is named."""
    models = {name for name, node in planned.nodes.items() if node.gives not in NOT_MODELS}
    before = {
        name: source
        for name in planned.nodes
        if name in models and (source := next(iter(planned.nodes[name].inputs.values()), None)) in models
    }
    if step is not None:
        if step not in before:
            known = ", ".join(before) or "none"
            message = f"no step that makes a model of another is called `{step}`{did_you_mean(step, before)}"
            raise RecipeError(f"--step {step}: {message}; there are: {known}")
        way = planned.ancestors(step)
        before = {name: source for name, source in before.items() if name in way}
    if not before:
        raise RecipeError(f"{planned.path}: no step makes a model of another; there is nothing to compare")
    return list(before.items())


def _predict(nodes: dict[str, Node], model: str, role: str) -> str:
    """Add the node that answers the rows with a model, unless the plan has it; return its id."""
    name = f"predict:{model}" if role == "validation" else f"predict:{role}:{model}"
    if name not in nodes:
        first = tuple(each for each in (APART, FIDELITY) if each in nodes)
        data = {"validation": f"data.{role}"}
        nodes[name] = Node(name, "predict", stages.get("predict")(), {"model": model}, data, first)
    return name


def _compare(nodes: dict[str, Node], name: str, use: str, stage: stages.Stage, sides: Sequence[str], role: str) -> str:
    candidate, reference = sides
    inputs = {"candidate": candidate, "reference": reference}
    nodes[name] = Node(name, use, stage, inputs, {"validation": f"data.{role}"})
    return name


def collect(built: BuildResult, metric: str | None = None) -> Bisection:
    """Read what the build of `make_plan` measured.

    Raises:
        RecipeError: the metric was not measured with these models.
    """
    found, facts = [], None
    for name, node in built.plan.nodes.items():
        if not name.startswith(RIGHT):
            continue
        facts = node.stage.parse_facts(built.artifacts[name].facts)
        chosen = metric or facts.metric
        if chosen not in facts.metrics:
            raise RecipeError(f"--metric {chosen}: it was not measured; there are: {', '.join(facts.metrics)}")
        found.append(_step(built, name.removeprefix(RIGHT), facts.metrics[chosen]))
    if facts is None:
        raise RecipeError("no model was compared")
    name = metric or facts.metric
    lower = facts.metrics[name].better == "lower"
    lost = [step for step in found if step.verdict == "lost" and step.difference is not None]
    worst = max(lost, key=lambda step: (step.difference or 0.0) * (1 if lower else -1), default=None)
    read = {
        source for name, node in built.plan.nodes.items() if name.startswith(RIGHT) for source in node.data.values()
    }
    return Bisection(
        built.plan.name,
        name,
        "lower" if lower else "higher",
        "selection" if "data.selection" in read else "validation",
        facts.rows,
        facts.confidence,
        found,
        None if worst is None else worst.step,
    )


def _step(built: BuildResult, model: str, figures: Any) -> BisectedStep:
    value, before_value, difference, low, high = (
        getattr(figures, name) for name in ("candidate", "reference", "difference", "low", "high")
    )
    lower = figures.better == "lower"
    before = next(iter(built.plan.nodes[model].inputs.values()))
    speed = None
    if (timed := f"{FAST}{model}") in built.artifacts:
        speed = built.plan.nodes[timed].stage.parse_facts(built.artifacts[timed].facts).speedup
    worse, better = (low is not None and low > 0), (high is not None and high < 0)
    if not lower:
        worse, better = better, worse
    return BisectedStep(
        model,
        built.plan.nodes[model].use,
        before,
        value,
        before_value,
        difference,
        low,
        high,
        None if speed is None else speed.value,
        None if speed is None else speed.low,
        None if speed is None else speed.high,
        _size(built, model),
        _size(built, before),
        "lost" if worse else "won" if better else "uncertain",
    )


def _size(built: BuildResult, name: str) -> int:
    return sum(path.stat().st_size for path in built.artifacts[name].path.rglob("*") if path.is_file())


def cells(found: Bisection) -> list[tuple[str, ...]]:
    """Return the table as text, its heading first."""
    head = (*HEAD[:3], found.metric, *HEAD[4:])
    return [head, *(_cells(step) for step in found.steps)]


def _cells(step: BisectedStep) -> tuple[str, ...]:
    speed = (
        "not measured" if step.speedup is None else _interval(step.speedup, step.speedup_low, step.speedup_high, ".2f")
    )
    change = f"{size(step.size_before)} → {size(step.size)}"
    return (step.step, step.use, step.before, _number(step.value, ".4f"), _difference(step), speed, change)


def _difference(step: BisectedStep) -> str:
    return _interval(step.difference, step.low, step.high, "+.4f")


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    return f"{_number(value, form)} ({_number(low, form)} to {_number(high, form)})"


def _number(value: float | None, form: str) -> str:
    return "NaN" if value is None else format(value, form)


def write(found: Bisection, planned: Plan, out: Path) -> Path:
    """Write report.md and bisect.json to `out/NAME/bisect/`; return that directory."""
    home = home_of(planned, out)
    head, *rows = cells(found)
    about = (
        f"{found.rows} rows of `data.{found.role}`; differences are from the model before, with the "
        f"{found.confidence:.0%} interval. {found.says[0].upper()}{found.says[1:]}."
    )
    escaped = [tuple(map(escape, row)) for row in rows]
    lines = [
        f"# {escape(found.recipe)}: where {escape(found.metric)} was lost",
        "",
        about,
        *table(list(map(escape, head)), escaped),
    ]
    with writing(out):
        make_home(home)
        folder = home / FOLDER
        folder.mkdir(exist_ok=True)
        for name, text in {
            REPORT: "\n".join(lines) + "\n",
            JSON: json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n",
        }.items():
            write_file(folder / name, text, folder / f".{name}.part")
    return folder
