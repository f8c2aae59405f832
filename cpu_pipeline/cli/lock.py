"""`cpu-pipeline lock`: write a recipe's lock, or check that it is fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import AllowPaths, Recipes, RemoteOption, StoreOption, open_store

if TYPE_CHECKING:
    from cpu_pipeline.api import Upgrade
    from cpu_pipeline.graph.plan import Plan


def lock(
    recipes: Recipes,
    check: Annotated[
        bool, typer.Option("--check", help="Build nothing: exit 5 when a lock is stale, and say in what.")
    ] = False,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="First set each revision to the newest one of the branch of `refresh.follow`."),
    ] = False,
    allow_paths: AllowPaths = None,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Create the environments that steps need and that do not exist.")
    ] = False,
) -> None:
    """Build recipes and write NAME.lock beside each: commits, files, packages, every step's key and output, figures."""
    from cpu_pipeline import api
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.core.errors import RecipeError

    if check and upgrade:
        raise RecipeError("--check changes nothing; leave out --upgrade")
    loaded = [api.load_recipe(recipe, allow_paths=allow_paths or ()) for recipe in recipes]
    opened = open_store(store, store_remote)
    upgrades = [api.upgrade(recipe) if upgrade else None for recipe in loaded]
    planned = [api.plan(new.recipe if new else old) for old, new in zip(loaded, upgrades, strict=True)]

    def write(item: tuple[Plan, Upgrade | None]) -> int:
        plan, newer = item
        if check:
            print(f"fresh  {api.check_lock(plan)}")
            return 0
        with Progress() as tell:
            path, new = api.write_lock(plan, opened, jobs=jobs, create_envs=create_envs, tell=tell, upgrade=newer)
        for change in newer.changes if newer is not None else ():
            print(f"advanced  {change}")
        print(f"{'wrote' if new else 'unchanged'}  {path}")
        return 0

    each_recipe(list(zip(planned, upgrades, strict=True)), write)
