"""`cpu-pipeline refresh`: refresh what is in service, and report the outcome to people, programs and CI."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import AllowPaths, Json, RemoteOption, StoreOption, open_store, require_own_names

if TYPE_CHECKING:
    from cpu_pipeline.core.errors import PipelineError
    from cpu_pipeline.recipe.spec import Trigger
    from cpu_pipeline.refresh.outcome import Refreshed

FOLDER = Path("recipes")


def refresh(
    recipes: Annotated[
        list[Path] | None, typer.Argument(help="Recipe files; every file of recipes/ when none is named.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="model,data,recipe,toolchain", help="React to these alone.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what changed, and do nothing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on with the next recipe when one fails or is refused.")
    ] = False,
    allow_paths: AllowPaths = None,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    out: Annotated[Path, typer.Option(help="The directory of NAME/<version>/ and NAME/latest.")] = Path("artifacts"),
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Create the environments that steps need and that do not exist.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Find what changed since the locks; rebuild it, compare it with the float model and what is in service, promote.

    Prints one line of JSON for each recipe. Text for people goes to stderr, and as Markdown to the file that
    GITHUB_STEP_SUMMARY names. With --json stderr has errors alone.
    """
    from cpu_pipeline.cli._each_recipe import each_recipe
    from cpu_pipeline.cli.output import patient
    from cpu_pipeline.cli.progress import Progress
    from cpu_pipeline.refresh import outcome, reconcile

    triggers = _triggers(only)
    paths = recipes or _all()
    require_own_names(paths)
    opened = open_store(store, store_remote)
    results: list[Refreshed] = []

    def refresh_one(path: Path) -> int:
        with Progress(quiet=as_json) as tell:
            result = reconcile.refresh(
                path,
                opened,
                out,
                only=triggers,
                allow_paths=allow_paths or (),
                jobs=jobs,
                create_envs=create_envs,
                dry_run=dry_run,
                tell=tell,
            )
        return report(result)

    def report(result: Refreshed) -> int:
        results.append(result)
        with patient(sys.stdout):
            print(json.dumps(vars(result), ensure_ascii=False), flush=True)
        _print(result, errors_alone=as_json)
        return result.exit_code

    def report_error(path: Path, error: PipelineError) -> int:
        return report(outcome.failed(path, out, error))

    try:
        return each_recipe(paths, refresh_one, report=report_error, keep_going=keep_going)
    finally:
        _summarize(results)


def _triggers(only: str | None) -> list[Trigger]:
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.core.text import did_you_mean
    from cpu_pipeline.refresh.drift import TRIGGERS

    words = only.split(",") if only is not None else []
    for word in words:
        if word not in TRIGGERS:
            raise RecipeError(f"--only {word}: it is not one of {', '.join(TRIGGERS)}{did_you_mean(word, TRIGGERS)}")
    return [trigger for trigger in TRIGGERS if trigger in words]


def _all() -> list[Path]:
    from cpu_pipeline.core.errors import RecipeError

    found = sorted(FOLDER.glob("*.yaml"))
    if not found:
        raise RecipeError(f"no recipe is named, and there is none in {FOLDER}/; name one, or go where they are")
    return found


def _summarize(results: Sequence[Refreshed]) -> None:
    """Append to the summary page of CI; a page that can't be written undoes nothing."""
    from cpu_pipeline.cli.options import warn
    from cpu_pipeline.refresh.summary import summary

    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(page).open("a", encoding="utf-8") as file:
                file.write(summary([vars(result) for result in results]))
        except OSError as error:
            warn(f"GITHUB_STEP_SUMMARY: {page}: {error.strerror}")


def _print(result: Refreshed, *, errors_alone: bool) -> None:
    from cpu_pipeline.cli.output import patient, plain

    lines = [f"error: {result.says}"] if result.exit_code else []
    if not errors_alone and result.outcome != "refused":
        lines += [] if result.exit_code else [f"{result.outcome}  {result.recipe}: {result.says}"]
        lines += [f"  because {cause}" for cause in result.causes]
        lines += [f"  not reacted to: {change}" for change in result.ignored]
        lines += [f"  {gate}: {figure}" for gate, figures in result.changes.items() for figure in figures]
        lines += [f"  removed the version {version}" for version in result.removed]
    with patient(sys.stderr):
        for line in lines:
            print(plain(line), file=sys.stderr)
