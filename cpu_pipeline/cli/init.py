"""`cpu-pipeline init` and `pin`: a first recipe for a model, with every commit pinned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    model: Annotated[str, typer.Argument(help="A model on the Hub, as owner/name.")],
    task: Annotated[str | None, typer.Option(help="The task, when config and card don't tell.")] = None,
    data: Annotated[str | None, typer.Option(help="A data set on the Hub, as owner/name.")] = None,
    pipeline: Annotated[str, typer.Option(help="The pipeline to use.")] = "onnx-int8",
    write: Annotated[Path | None, typer.Option("--out", help="The file; recipes/NAME.yaml unless given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a first recipe: task and metric proposed from the model's config and card, commits pinned."""
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.recipe import scaffold

    path = write or Path("recipes") / f"{model.rpartition('/')[2].lower()}.yaml"
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already; name another with --out, or overwrite it with --force")
    text, notes = scaffold.recipe(model, task, data, pipeline, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(path)


def pin(
    repo: Annotated[str, typer.Argument(help="A repository on the Hub, as owner/name.")],
    revision: Annotated[str, typer.Argument(help="A branch, a tag or a short commit.")] = "main",
    data: Annotated[bool, typer.Option("--data", help="It is a data set.")] = False,
) -> None:
    """Print the full commit that a branch or tag stands at."""
    from cpu_pipeline.recipe import scaffold

    typer.echo(scaffold.commit(repo, "data" if data else "model", revision))
