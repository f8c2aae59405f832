"""`cpu-pipeline env`: the environments of stacks that cannot live beside the default one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import EnvCheckOutput

app = typer.Typer(
    help="Make, check and remove the environments that some stages need.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="An environment, as `env list` names it.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the environments: state, location, purpose, and the state of its upstream."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.engine import environments

    found = [environments.get(name) for name in environments.names()]
    if as_json:
        print_json([{**vars(e), "ready": e.ready, "folder": str(e.folder)} for e in found])
        return
    for one in found:
        columns([(one.name, "ready" if one.ready else "not made", str(one.folder))])
        columns([("", said) for said in (one.about, one.status, one.warning) if said])


@app.command("create")
def create(name: Name) -> None:
    """Make an environment with venv and pip; one that was half made is finished, one that is whole is left alone."""
    from cpu_pipeline.engine import environments

    typer.echo(str(environments.create(name, lambda line: print(line, file=sys.stderr, flush=True))))


@app.command("check")
def check(name: Name, as_json: Json = False) -> int:
    """Compare an environment with its pins, file by file, and start a worker in it; exit 4 when it is not whole."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.errors import BackendMissing
    from cpu_pipeline.engine import environments

    problems = environments.problems(name)
    if as_json:
        folder = str(environments.get(name).folder)
        result: EnvCheckOutput = {"environment": name, "folder": folder, "problems": problems}
        print_json(result)
    else:
        for problem in problems:
            print(problem)
        print(f"{name}: {len(problems)} problems")
    return BackendMissing.exit_code if problems else 0


@app.command("remove")
def remove(name: Name) -> None:
    """Remove an environment, older ones of the same name too."""
    from cpu_pipeline.engine import environments

    for folder in environments.remove(name):
        typer.echo(f"removed {folder}")
