"""`cpu-pipeline sensitivity`: which operators of a quantized model do most damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpu_pipeline.cli.options import AllowPaths, Json, RemoteOption, Sets, StoreOption, open_store, parse_sets


def sensitivity(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, or the bare name of a shipped one (quickstart).")],
    step: Annotated[str, typer.Argument(help="A step of quantize.onnx or quantize.openvino.")],
    metric: Annotated[
        str | None, typer.Option(help="Metric that confirms the worst; the task's usual one unless given.")
    ] = None,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    out: Annotated[Path, typer.Option(help="Table and picture go to OUT/NAME/sensitivity/STEP/.")] = Path("artifacts"),
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    sets: Sets = None,
    allow_paths: AllowPaths = None,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Create the environments that steps need and that do not exist.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rank the operators of a quantized model by the damage that each does alone, and confirm the five worst.

    Damage is measured on rows of `data.calibration`. Each of the five is put back to float alone, and the model's
    metric measured on `data.selection`, or on `data.calibration` where the recipe has no selection rows. What is
    cached is reused, and nothing is put into service.
    """
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.release.sensitivity import cells

    planned = api.plan(api.load_recipe(recipe, parse_sets(sets), allow_paths=allow_paths or ()))
    with Progress() as tell:
        found, folder = api.sensitivity(
            planned,
            step,
            open_store(store, store_remote),
            out,
            metric=metric,
            jobs=jobs,
            create_envs=create_envs,
            tell=tell,
        )
    if as_json:
        print_json(found)
        return
    shown = cells(found)
    columns(shown)
    left = len(found.operators) - len(shown) + 1
    more = f"{left} more operators, " if left > 0 else ""
    print(f"{found.says}; {more}table and picture: {folder}")
