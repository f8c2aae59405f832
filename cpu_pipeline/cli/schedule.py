"""`cpu-pipeline schedule`: a ready file for an existing scheduler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from cpu_pipeline.cli.options import StoreOption

KINDS = ("github-actions", "cron", "systemd", "kubernetes")

ELSEWHERE = ("github-actions", "kubernetes")
"""These run on machines where no folder of this one is."""


def _kind(text: str) -> str:
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(KINDS)}")
    return text


def schedule(
    kind: Annotated[str, Option("--for", metavar="|".join(KINDS), callback=_kind, help="Who is to run it.")],
    recipes: Annotated[
        list[Path] | None, typer.Argument(help="Recipe files; those of recipes/ that have a schedule unless given.")
    ] = None,
    store_remote: Annotated[
        str | None,
        Option("--store-remote", metavar="URL", help="Pull cached steps from this store, push new ones."),
    ] = None,
    out: Annotated[Path, Option(help="Where NAME/<version>/ and NAME/latest go, below this folder.")] = Path(
        "artifacts"
    ),
    store: StoreOption = None,
    install: Annotated[
        str | None,
        Option(
            metavar="COMMAND",
            help="How cpu-pipeline gets onto GitHub's machine; else pip, by the variable CPU_PIPELINE_REQUIREMENT.",
        ),
    ] = None,
    image: Annotated[str | None, Option(help="Container image that holds cpu-pipeline, for kubernetes.")] = None,
    write: Annotated[
        Path | None, Option(metavar="FOLDER", help="Write the files into this folder instead of printing them.")
    ] = None,
) -> None:
    """Print a ready file with which cron, systemd, GitHub Actions or Kubernetes refresh recipes when they are due."""
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.core.files import at_home
    from cpu_pipeline.refresh import schedule as scheduling

    if store is not None and kind in ELSEWHERE:
        raise RecipeError(
            f"--store: a file for {kind} has a place of its own for built steps; leave it out, or name one that "
            "machines share with --store-remote"
        )
    project = Path.cwd()
    kept = store or (Path(said) if (said := os.environ.get("CPU_PIPELINE_STORE")) else None)
    order = scheduling.Order(
        scheduling.jobs(recipes or scheduling.find_recipes(project), project),
        project,
        scheduling.this_program(),
        scheduling.below(out, project),
        None if kept is None else at_home(kept).absolute(),
        scheduling.address(store_remote),
        install,
        image,
    )
    made = scheduling.files(scheduling.Kind(kind), order)
    if write is not None:
        for path in scheduling.write(made, write):
            print(f"wrote  {path}")
        return
    for name, text in made.items():
        if len(made) > 1:
            print(f"# ==> {name}")
        print(text, end="" if len(made) == 1 else "\n")
