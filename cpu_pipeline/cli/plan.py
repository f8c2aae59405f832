"""`cpu-pipeline plan` and `check`: what a build would do, and whether files are valid. They write nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json, RemoteOption, Sets, StoreOption, Until, open_store, parse_sets

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import CheckedFile, PlanOutput


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the bare name of a shipped one (quickstart).")],
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    until: Until = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show every step as cached, to build, or depending on another's outcome, and why."""
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.engine import preview

    planned = api.plan(api.load_recipe(recipe, parse_sets(sets)), until)
    seen = list(preview.look(planned, open_store(store, store_remote)))
    if as_json:
        result: PlanOutput = {
            "recipe": planned.name,
            "outputs": planned.outputs,
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
    print(f"{planned.name}: {len(seen) - build - depend} cached, {build} to build, {depend} depending on others")


def check(
    files: Annotated[list[Path], typer.Argument(help="Recipe and pipeline files.")],
    as_json: Json = False,
) -> int:
    """Check recipes and pipelines: schema, options, and how steps fit together. For editors, hooks and CI."""
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import fail
    from cpu_pipeline.core.errors import PipelineError

    worst = 0
    results: list[CheckedFile] = []
    for file in files:
        try:
            api.check(file)
        except PipelineError as error:
            worst = max(worst, error.exit_code)
            results.append({"file": str(file), "exit_code": error.exit_code, "says": str(error).splitlines()})
            if not as_json:
                fail(error)
        else:
            results.append({"file": str(file), "exit_code": 0, "says": []})
            if not as_json:
                print(f"ok  {file}")
    if as_json:
        print_json(results)
    return worst
