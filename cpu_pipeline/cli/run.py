"""`cpu-pipeline run`: build recipes, check them, publish what passed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import (
    AllowPaths,
    Json,
    Recipes,
    RemoteOption,
    Sets,
    StoreOption,
    Until,
    open_store,
    parse_sets,
    require_own_names,
)

if TYPE_CHECKING:
    from cpu_pipeline.api import Outcome
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
    until: Until = None,
    sets: Sets = None,
    allow_paths: AllowPaths = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on with the next recipe when one fails.")
    ] = False,
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
    """Build recipes: reuse cached steps, build the others, check them, and publish what passed every gate."""
    from cpu_pipeline import api
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli.output import Progress, fail, patient
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.errors import RecipeError

    if locked and until is not None:
        raise RecipeError("--locked builds the whole recipe; leave out --until")
    require_own_names(recipes)
    options = parse_sets(sets)
    # Every recipe is read and checked before the first is built: a mistake in the last one costs nothing.
    planned = [api.plan(api.load_recipe(recipe, options, allow_paths=allow_paths or ()), until) for recipe in recipes]
    opened = open_store(store, store_remote)
    api.precheck(planned, opened)
    if rebuild:
        return _rebuild(planned, opened, jobs=jobs, create_envs=create_envs, locked=locked, as_json=as_json)
    results: list[RunOutput | FailedRun] = []

    def build(plan: Plan) -> int:
        with Progress() as tell:
            outcome = api.build(
                plan,
                opened,
                out,
                jobs=jobs,
                force=force,
                remeasure=remeasure,
                create_envs=create_envs,
                locked=locked,
                tell=tell,
            )
        results.append(_result(plan, outcome))
        if not as_json:
            with patient(sys.stdout):
                _print(plan, outcome)
        return 0

    def report(plan: Plan, error: PipelineError) -> int:
        name = type(error).__name__
        results.append({"recipe": plan.name, "exit_code": error.exit_code, "error": name, "says": str(error)})
        return fail(error)

    alone = len(planned) == 1 and not keep_going
    code = each_recipe(planned, build, report=None if alone else report, keep_going=keep_going)
    if as_json:
        print_json(results[0] if len(planned) == 1 else results)
    return code


def _rebuild(planned: list[Plan], store: Store, *, jobs: int, create_envs: bool, locked: bool, as_json: bool) -> int:
    from cpu_pipeline import api
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli.output import Progress, columns
    from cpu_pipeline.cli.output import as_json as print_json
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


def _result(plan: Plan, outcome: Outcome) -> RunOutput:
    built = outcome.built
    return {
        "recipe": plan.name,
        "exit_code": 0,
        "path": None if outcome.path is None else str(outcome.path),
        "fresh": outcome.fresh,
        "instead_of": outcome.instead_of,
        "built": built.made,
        "outputs": {
            n: {"format": built.artifacts[n].format, "digest": built.artifacts[n].digest} for n in plan.outputs
        },
        "checks": built.verdicts,
        "steps": {
            n: {"key": built.keys[n], "digest": a.digest, "facts": dict(a.facts)} for n, a in built.artifacts.items()
        },
    }


def _print(plan: Plan, outcome: Outcome) -> None:
    built = outcome.built
    for name, found in built.verdicts.items():
        for verdict in found:
            print(f"{'passed' if verdict.passed else 'FAILED'}  {name}: {verdict.says}")
    cached = len(built.artifacts) - len(built.made)
    print(f"{plan.name}: {len(built.made)} steps built, {cached} cached")
    if outcome.path is not None:
        instead = f" (instead of {outcome.instead_of})" if outcome.instead_of else ""
        print(f"{'wrote' if outcome.fresh else 'promoted' if instead else 'unchanged'}  {outcome.path}{instead}")
        print(f"report  {outcome.path / 'report.md'}")
    elif built.artifacts:
        last = list(built.artifacts)[-1]
        print(f"{last}  {built.artifacts[last].path}")
