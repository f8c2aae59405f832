"""`cpu-pipeline init` and `pin`: a first recipe for a model and rows, with every commit pinned."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def init(
    model: Annotated[str, typer.Argument(help="A folder with a model, or a model on the Hub as owner/name.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows to score: a file, a folder of files, or owner/name on the Hub."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="FILE", help="Other rows, for quantization to calibrate on.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task, where model and rows do not tell.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="COLUMN=NAME", help="What the rows call a column of the task; may be repeated."
        ),
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="The pipeline; one that fits the task unless given.")] = None,
    write: Annotated[
        Path | None, typer.Option("--out", help="The file; NAME.yaml, or recipes/NAME.yaml for a model of the Hub.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a first recipe: the task found in the model, the columns in the rows, each line explained."""
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.recipe import package_data
    from cpu_pipeline.recipe.scaffold.draft import Request
    from cpu_pipeline.recipe.scaffold.propose import propose

    path = write or _usual_path(model)
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already; name another with --out, or overwrite it with --force")
    made = propose(Request(model, path, data, calibration, task, pipeline, _columns(columns or ())))
    _write(path, made.text)
    if made.schema is not None:
        _write(made.schema, package_data.file("schema.json").read_text(encoding="utf-8"))
    for note in made.notes:
        typer.echo(f"note   {note}", err=True)
    typer.echo(f"wrote  {path}")
    allow = "".join(f" --allow-path {shlex.quote(str(each))}" for each in made.outside)
    typer.echo(f"next   cpu-pipeline check {shlex.quote(str(path))}{allow}")
    typer.echo(f"       cpu-pipeline run {shlex.quote(str(path))}{allow}")


def _usual_path(model: str) -> Path:
    """Name the file of a recipe after its model."""
    from cpu_pipeline.recipe.scaffold import local

    if not local.is_local(model):
        return Path("recipes") / f"{_plain(model.rpartition('/')[2])}.yaml"
    return Path(f"{_plain(local.read_model(model).name)}.yaml")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-.") or "model"


def _columns(given: Sequence[str]) -> dict[str, str]:
    from cpu_pipeline.core.errors import RecipeError

    found = dict[str, str]()
    for text in given:
        column, equals, name = text.partition("=")
        if not (column and equals and name):
            raise RecipeError(f"--column {text}: write it as COLUMN=NAME")
        found[column] = name
    return found


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    from cpu_pipeline.core.files import write_file, writing

    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        write_file(path, text, path.with_name(f".{path.name}.{os.getpid()}"))


def pin(
    repo: Annotated[str, typer.Argument(help="A repository on the Hub, as owner/name.")],
    revision: Annotated[str, typer.Argument(help="A branch, a tag or a short commit.")] = "main",
    data: Annotated[bool, typer.Option("--data", help="It is a data set.")] = False,
) -> None:
    """Print the full commit that a branch or tag stands at."""
    from cpu_pipeline.recipe.scaffold import hub

    typer.echo(hub.commit(repo, "data" if data else "model", revision))
