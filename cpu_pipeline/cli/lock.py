"""`cpu-pipeline lock`: write down what a recipe came to, or check that it still holds."""

from __future__ import annotations

from typing import Annotated

import typer

from cpu_pipeline.cli.options import Recipes, RemoteOption, StoreOption, open_store


def lock(
    recipes: Recipes,
    check: Annotated[
        bool, typer.Option("--check", help="Build nothing: exit 5 when a lock is stale, and say in what.")
    ] = False,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="First move each revision to where the branch of `refresh.follow` stands now."),
    ] = False,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Make the environments that steps need and that are not here.")
    ] = False,
) -> None:
    """Build recipes and write NAME.lock beside each: commits, files, packages, every step's key and output, figures."""
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import Progress
    from cpu_pipeline.core.errors import RecipeError

    if check and upgrade:
        raise RecipeError("--check moves nothing; leave out --upgrade")
    loaded = [api.load_recipe(recipe) for recipe in recipes]
    opened = open_store(store, store_remote)
    moves = [api.upgrade(recipe) if upgrade else None for recipe in loaded]
    planned = [api.plan(recipe if move is None else move.recipe) for recipe, move in zip(loaded, moves, strict=True)]
    for plan, move in zip(planned, moves, strict=True):
        if check:
            print(f"fresh  {api.check_lock(plan)}")
            continue
        with Progress() as tell:
            place, new = api.write_lock(plan, opened, jobs, create_envs, tell, move)
        for says in move.says if move is not None else ():
            print(f"moved  {says}")
        print(f"{'wrote' if new else 'unchanged'}  {place}")
