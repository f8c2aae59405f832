"""`cpu-pipeline bisect`: which step lost how much of a metric, and what it bought in speed and size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpu_pipeline.cli.options import AllowPaths, Json, RemoteOption, Sets, StoreOption, open_store, parse_sets


def bisect(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, or the bare name of a shipped one (quickstart).")],
    metric: Annotated[str | None, typer.Option(help="Metric; the task's usual one unless given.")] = None,
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="Compare the models that lead to this one alone.")
    ] = None,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    out: Annotated[Path, typer.Option(help="The table goes to OUT/NAME/bisect/.")] = Path("artifacts"),
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Leave out what measures time.")] = False,
    sets: Sets = None,
    allow_paths: AllowPaths = None,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Create the environments that steps need and that do not exist.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every model of a recipe with the one before it, on the same rows: which step lost how much.

    Rows are those of `data.selection`, or of `data.validation` where there are none. What is cached is reused, and
    nothing is put into service.
    """
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.release.bisect import cells

    planned = api.plan(api.load_recipe(recipe, parse_sets(sets), allow_paths=allow_paths or ()))
    with Progress() as tell:
        found, folder = api.bisect(
            planned,
            open_store(store, store_remote),
            out,
            metric=metric,
            step=step,
            measure=not no_measure,
            jobs=jobs,
            create_envs=create_envs,
            tell=tell,
        )
    if as_json:
        print_json(found)
        return
    columns(cells(found))
    print(f"{found.says}; {found.rows} rows of data.{found.role}; table: {folder}")
