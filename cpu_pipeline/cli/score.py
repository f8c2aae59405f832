"""`cpu-pipeline score`: score predictions made anywhere with a task's own metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import ScoreOutput
    from cpu_pipeline.tasks._base import Task


def score(
    task: Annotated[str, typer.Argument(help="Task, as recipes name it: question-answering, ...")],
    references: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Right answers: JSON lines of rows, or SQuAD's JSON.")
    ],
    predictions: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Answers to score: JSON lines, or SQuAD's id -> text.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; metrics are fractions.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the task, such as version=2."),
    ] = None,
) -> None:
    """Score predictions made anywhere with a task's own metrics."""
    made = _task(task, options or []).for_references(references)
    found = made.score(made.read_references(references), made.read_predictions(predictions))
    if as_json:
        metrics = {name: value if math.isfinite(value) else None for name, value in found.metrics.items()}
        result: ScoreOutput = {"task": task, "metrics": metrics, "counts": dict(found.counts)}
        typer.echo(json.dumps(result, indent=1))
        return
    width = max(len(name) for name in (*found.metrics, *found.counts))
    for name, value in found.metrics.items():
        typer.echo(f"{name:{width}}  {100 * value:.2f} %" if made.percent else f"{name:{width}}  {value:.4f}")
    for name, count in found.counts.items():
        typer.echo(f"{name:{width}}  {count}")


def _task(name: str, options: list[str]) -> Task:
    """Make the task with its options; values are read as JSON, and as text where they are none."""
    from pydantic import ValidationError

    from cpu_pipeline import tasks
    from cpu_pipeline.core.errors import RecipeError

    given: dict[str, Any] = {}
    for option in options:
        key, is_there, value = option.partition("=")
        if not is_there:
            raise RecipeError(f"--set {option}: write it as option=value")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    kind = tasks.get(name)
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or name
        known = ", ".join(field.alias or key for key, field in kind.model_fields.items())
        raise RecipeError(
            f"--set {where}: {first['msg'].removeprefix('Value error, ')}; {name} has: {known}"
        ) from error
