"""Which operators of a quantized model do most damage: a plan that measures them, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from cpu_pipeline import stages
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import write_file, writing
from cpu_pipeline.core.markdown import escape, table
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import APART, FIDELITY, Node, Plan
from cpu_pipeline.release.bars import bars
from cpu_pipeline.release.tree import REPORT, home_of, make_home

FOLDER, JSON, PICTURE = "sensitivity", "sensitivity.json", "sensitivity.svg"
USE = "quantize.sensitivity"
QUANTIZERS = ("quantize.onnx", "quantize.openvino")
SHOWN = 20
"""Operators on the terminal and in the picture; the other files have all."""


@dataclass(frozen=True)
class SensitiveOperator:
    """One quantized operator."""

    name: str
    """Its name in the float graph, as `skip_nodes` and `ignored_names` take it."""
    kind: str
    """Its type, such as MatMul."""
    weights: int
    """Elements of its own weights; 0 where it multiplies activations."""
    damage: float | None
    """How far the answers move when it alone is quantized, in `measure`; null where that is not finite."""
    value: float | None
    """The metric with all quantized but this one, as a fraction; null where it was not measured."""
    gain: float | None
    """How much better that is than with all quantized; null likewise."""


@dataclass(frozen=True)
class SensitivityTable:
    """What each operator's quantization does to a model's answers."""

    recipe: str
    """Name of the recipe."""
    step: str
    """The step that quantizes."""
    use: str
    """Its stage."""
    measure: str
    """What damage is: KL divergence (nats), or relative squared error for outputs that choose nothing."""
    sequences: int
    """Sequences of calibration rows on which damage was measured."""
    metric: str
    """The metric that confirms the worst operators."""
    better: Literal["higher", "lower"]
    """Whether more of it is better, or less."""
    role: Literal["selection", "calibration"]
    """The recipe's rows on which it was measured."""
    rows: int
    """How many they are."""
    reference: float | None
    """The float model's metric; null where the rows have no right answers."""
    quantized: float | None
    """The metric with every operator quantized; null likewise."""
    operators: Sequence[SensitiveOperator]
    """Every quantized operator, the one that does most damage first."""

    @property
    def says(self) -> str:
        """Say on which rows what was measured, in a sentence."""
        ranked = f"damage: {self.measure} on {self.sequences} calibration sequences"
        if self.reference is None:
            return f"{ranked}; nothing confirmed: the rows of data.{self.role} have no right answers"
        found = f"{self.metric} on {self.rows} rows of data.{self.role}"
        instead = ", as the recipe has no data.selection" if self.role == "calibration" else ""
        return f"{ranked}; {found}{instead}: float {_number(self.reference)}, quantized {_number(self.quantized)}"


def make_plan(planned: Plan, step: str, metric: str | None = None) -> Plan:
    """Return a plan that measures the operators of a step's model, and puts nothing out.

    Raises:
        RecipeError: there are no rows, no such metric, or no such step that quantizes.
    """
    known = [name for name, node in planned.nodes.items() if node.use in QUANTIZERS]
    if step not in known:
        there = ", ".join(known) or "none"
        raise RecipeError(
            f"{planned.path}: no step of {' or '.join(QUANTIZERS)} is called `{step}`{did_you_mean(step, known)}; "
            f"there are: {there}"
        )
    task = planned.context.task
    if task is None or "data.calibration" not in planned.nodes:
        raise RecipeError(f"{planned.path}: sensitivity needs `task` and `data.calibration`, which ranks operators")
    if metric is not None and not task.has_metric(metric):
        names = task.metrics_of()
        raise RecipeError(f"--metric {metric}: no such metric{did_you_mean(metric, names)}; it has: {', '.join(names)}")
    quantizer = planned.nodes[step]
    role = "selection" if "data.selection" in planned.nodes else "calibration"
    options = quantizer.stage.model_dump(mode="json", exclude_unset=True, exclude={"accuracy"})
    chosen = {"use": quantizer.use, "options": options, "role": role, "metric": metric}
    stage = stages.get(USE)(**chosen)
    first = tuple(each for each in (APART, FIDELITY) if each in planned.nodes)
    name, data = node_id(step), {each: f"data.{each}" for each in dict.fromkeys(("calibration", role))}
    node = Node(name, USE, stage, dict(quantizer.inputs), data, first, where=quantizer.where)
    return replace(planned, nodes={**planned.nodes, name: node}, outputs=(), withheld=None).until(name)


def node_id(step: str) -> str:
    """Name the node that measures the operators of a step's model."""
    return f"sensitivity:{step}"


def collect(built: BuildResult, step: str) -> SensitivityTable:
    """Read what the build of `make_plan` measured."""
    node = built.plan.nodes[node_id(step)]
    facts = node.stage.parse_facts(built.artifacts[node.id].facts)
    values = {each.name: each.value for each in facts.confirmed}
    sign = -1 if facts.lower_is_better else 1

    def operator(one: stages.Facts) -> SensitiveOperator:
        shown = one.model_dump()
        value = values.get(shown["name"])
        gain = None if value is None or facts.quantized is None else sign * (value - facts.quantized)
        return SensitiveOperator(**shown, value=value, gain=gain)

    return SensitivityTable(
        built.plan.name,
        step,
        node.stage.model_dump()["use"],
        facts.measure,
        facts.sequences,
        facts.metric,
        "lower" if facts.lower_is_better else "higher",
        facts.role,
        facts.rows,
        facts.reference,
        facts.quantized,
        [operator(one) for one in facts.operators],
    )


def cells(found: SensitivityTable, most: int | None = SHOWN) -> list[tuple[str, ...]]:
    """Return the table as text, its heading first; `most` operators of it, None for all."""
    head = ("operator", "type", "weights", "damage", f"{found.metric} with it in float", "gain")
    return [head, *(_cells(each) for each in found.operators[:most])]


def _cells(one: SensitiveOperator) -> tuple[str, ...]:
    damage = "undefined" if one.damage is None else f"{one.damage:.3g}"
    confirmed = ("-", "-") if one.value is None else (_number(one.value), f"{one.gain or 0.0:+.4f}")
    return (one.name, one.kind, str(one.weights), damage, *confirmed)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def write(found: SensitivityTable, planned: Plan, out: Path) -> Path:
    """Write report.md, sensitivity.json and sensitivity.svg to `out/NAME/sensitivity/STEP/`; return that directory."""
    home = home_of(planned, out)
    head, *rows = cells(found, None)
    title = f"{found.recipe}: damage of each operator of {found.step}"
    drawn = bars(title, [(each.name, each.damage) for each in found.operators[:SHOWN]], found.measure)
    lines = [
        f"# {escape(title)}",
        "",
        escape(f"{found.says[0].upper()}{found.says[1:]}."),
        "",
        f"![The {min(SHOWN, len(found.operators))} worst operators]({PICTURE})",
        *table(list(map(escape, head)), [tuple(map(escape, row)) for row in rows]),
    ]
    with writing(out):
        make_home(home)
        folder = home / FOLDER / found.step.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {
            REPORT: "\n".join(lines) + "\n",
            JSON: json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n",
            PICTURE: drawn,
        }.items():
            write_file(folder / name, text, folder / f".{name}.part")
    return folder
