"""`cpu-pipeline plan` and `check`: what a build would do, and whether files are valid. They write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import AllowPaths, Json, RemoteOption, Sets, StoreOption, Until, open_store, parse_sets

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import CheckedFile, PlanOutput
    from cpu_pipeline.graph.plan import Outside


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the bare name of a shipped one (quickstart).")],
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    until: Until = None,
    sets: Sets = None,
    allow_paths: AllowPaths = None,
    as_json: Json = False,
) -> None:
    """Show every step as cached, to build, or depending on another's outcome, and why."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.engine import preview
    from cpu_pipeline.graph import variants
    from cpu_pipeline.graph.planner import make_plan
    from cpu_pipeline.graph.precheck import cautions, precheck
    from cpu_pipeline.graph.sets import apply_sets
    from cpu_pipeline.recipe.reader import load_recipe

    planned = make_plan(apply_sets(load_recipe(recipe, allow_paths or ()), parse_sets(sets)))
    if until is not None:
        planned = variants.until(planned, until)
    opened = open_store(store, store_remote)
    seen = list(preview.look(planned, opened))
    known = {o.node.id: o.artifact.path for o in seen if o.artifact is not None and o.node.gives == "rows"}
    cached = {o.node.id for o in seen if o.state == "cached"}
    warnings = cautions(planned, known) if known else list(precheck(planned, cached).warnings)
    if as_json:
        result: PlanOutput = {
            "recipe": planned.name,
            "outputs": planned.outputs,
            "warnings": warnings,
            "steps": [
                {"id": o.node.id, "use": o.node.use, "gives": o.node.gives, "from": dict(o.node.inputs),
                 "data": dict(o.node.data), "state": o.state, "why": o.why}
                for o in seen
            ],
        }  # fmt: skip
        print_json(result)
        return
    rows = [
        (o.state, o.node.id, o.node.use, "<- " + (", ".join(o.node.inputs.values()) or "outside"), "; ".join(o.why))
        for o in seen
    ]
    columns(rows)
    build = sum(o.state == "build" for o in seen)
    depend = sum(o.state == "depends" for o in seen)
    for line in warnings:
        print(f"warning  {line}")
    print(f"{planned.name}: {len(seen) - build - depend} cached, {build} to build, {depend} depending on others")


def check(
    files: Annotated[list[Path], typer.Argument(help="Recipe and pipeline files.")],
    allow_paths: AllowPaths = None,
    recipe_only: Annotated[
        bool, typer.Option("--recipe-only", help="Check what the files say alone; read no model and no rows.")
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Compare tokenization with transformers' own, too; takes seconds.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Check recipes and pipelines, and the models and rows that they name: all that is known before a build.

    Nothing is built and nothing is downloaded. Exit code and messages are those that the build would give.
    """
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import fail
    from cpu_pipeline.core.errors import PipelineError
    from cpu_pipeline.graph.check import check as check_file

    worst = 0
    results: list[CheckedFile] = []
    for file in files:
        try:
            found = check_file(file, allow_paths or (), recipe_only=recipe_only, thorough=thorough)
        except PipelineError as error:
            worst = max(worst, error.exit_code)
            results.append({"file": str(file), "exit_code": error.exit_code, "says": str(error).splitlines(),
                            "outside": [], "unread": [], "warnings": []})  # fmt: skip
            if not as_json:
                fail(error)
        else:
            outside = [_outside(path) for path in found.outside]
            results.append({"file": str(file), "exit_code": 0, "says": [], "outside": outside,
                            "unread": list(found.unread), "warnings": list(found.warnings)})  # fmt: skip
            if not as_json:
                print(f"ok  {file}" + (f"  (not read: {'; '.join(found.unread)})" if found.unread else ""))
                for line in outside:
                    print(f"    {line}")
                for line in found.warnings:
                    print(f"    warning  {line}")
    if as_json:
        print_json(results)
    return worst


def _outside(path: Outside) -> str:
    from cpu_pipeline.graph.paths import allow_option

    name = ".".join(map(str, path.keys))
    end = "allowed" if path.allowed else f"not read; a build needs {allow_option(path.path)}"
    return f"outside  {path.where}: {name}: {path.path} ({end})"
