"""`cpu-pipeline run`: build recipes, check them, publish what passed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import (
    AllowPaths,
    Json,
    Limit,
    NoMeasure,
    Recipes,
    RemoteOption,
    Sets,
    Skip,
    StoreOption,
    Until,
    open_store,
    parse_sets,
    require_own_names,
)

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import FailedRun, RebuildOutput, RunOutput
    from cpu_pipeline.core.errors import PipelineError
    from cpu_pipeline.graph.plan import Plan
    from cpu_pipeline.store.local import Store


def run(
    recipes: Recipes,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    out: Annotated[Path, typer.Option(help="The directory of NAME/<version>/ and NAME/latest.")] = Path("artifacts"),
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    limit: Limit = None,
    until: Until = None,
    skip: Skip = None,
    no_measure: NoMeasure = False,
    sets: Sets = None,
    allow_paths: AllowPaths = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on with the next recipe when one fails.")
    ] = False,
    promote_anyway: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="Put into service what --set changed, and record why; else it goes into NAME/set/."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a version that was edited by hand.")] = False,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure latency again, though it is cached.")] = False,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Create the environments that steps need and that do not exist.")
    ] = False,
    locked: Annotated[
        bool,
        typer.Option("--locked", help="Refuse (5) whatever differs from the recipe's lock, before and after building."),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Build from nothing, publish nothing, and compare each step with the cache (5)."
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Build recipes: reuse cached steps, build the others, check them, and publish what passed every gate.

    With several recipes all other steps run before the first measurement.
    """
    from cpu_pipeline import api
    from cpu_pipeline.cli import _outcome
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli._early import Early
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import fail, plain
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.core.errors import RecipeError

    if locked:
        _require_whole(limit=limit, until=until, skip=skip, no_measure=no_measure or None)
    if promote_anyway is not None and not sets:
        raise RecipeError("--promote-anyway is for what --set changed, and there is no --set")
    require_own_names(recipes)
    options = parse_sets(sets)
    # Every recipe is read and checked before the first is built: a mistake in the last one costs nothing.
    loaded = [api.load_recipe(recipe, options, allow_paths=allow_paths or ()) for recipe in recipes]
    planned = [api.plan(one, until, limit=limit, skip=skip or (), measure=not no_measure) for one in loaded]
    opened = open_store(store, store_remote)
    for line in api.precheck(planned, opened):
        typer.echo(f"warning   {plain(line)}", err=True)
    if rebuild:
        return _rebuild(planned, opened, jobs=jobs, create_envs=create_envs, locked=locked, as_json=as_json)
    early = Early(opened, out, jobs=jobs, create_envs=create_envs, keep_going=keep_going)
    early.prepare(planned)
    results: list[RunOutput | FailedRun] = []

    def build(plan: Plan) -> int:
        early.raise_error(plan)
        with _outcome.shown_if_failed(as_json=as_json), Progress() as tell:
            outcome = api.build(
                plan,
                opened,
                out,
                jobs=jobs,
                force=force,
                promote_anyway=promote_anyway,
                remeasure=remeasure,
                create_envs=create_envs,
                locked=locked,
                tell=early.news(plan, tell),
            )
        results.append(_outcome.result(plan, outcome))
        if not as_json:
            _outcome.show(plan, outcome)
        return 0

    def report(plan: Plan, error: PipelineError) -> int:
        results.append(_outcome.failure(plan, error))
        return fail(error)

    alone = len(planned) == 1 and not keep_going
    code = each_recipe(planned, build, report=None if alone else report, keep_going=keep_going)
    if as_json:
        print_json(results[0] if len(planned) == 1 else results)
    return code


def _require_whole(**given: object) -> None:
    """Refuse options with which `--locked` would compare less than the recipe builds."""
    from cpu_pipeline.core.errors import RecipeError

    for name, value in given.items():
        if value is not None:
            raise RecipeError(f"--locked builds the whole recipe; leave out --{name.replace('_', '-')}")


def _rebuild(planned: list[Plan], store: Store, *, jobs: int, create_envs: bool, locked: bool, as_json: bool) -> int:
    from cpu_pipeline import api
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.engine.rebuild import require_repeated

    def rebuild(plan: Plan) -> int:
        with Progress() as tell:
            steps = api.rebuild(plan, store, jobs=jobs, create_envs=create_envs, locked=locked, tell=tell)
        if as_json:
            result: RebuildOutput = {"recipe": plan.name, "steps": steps}
            print_json(result)
        else:
            columns([(step.verdict, step.step, step.says) for step in steps])
        require_repeated(steps)
        return 0

    return each_recipe(planned, rebuild)
