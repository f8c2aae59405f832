"""`cpu-pipeline refresh`: make what is in service fresh, and say what came of it, for people, machines and CI."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json, RemoteOption, StoreOption, open_store, require_own_names
from cpu_pipeline.refresh import outcome

if TYPE_CHECKING:
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what has moved, and do nothing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on with the next recipe when one fails or is refused.")
    ] = False,
    store: StoreOption = None,
    store_remote: RemoteOption = None,
    out: Annotated[Path, typer.Option(help="Where NAME/<version>/ and NAME/latest are.")] = Path("artifacts"),
    jobs: Annotated[int, typer.Option(min=1, help="How many steps may run at once.")] = 1,
    create_envs: Annotated[
        bool, typer.Option("--create-envs", help="Make the environments that steps need and that are not here.")
    ] = False,
    as_json: Json = False,
) -> int:
    """See what has moved since the locks; rebuild, compare with the float model and with what is in service, promote.

    Prints one line of JSON for each recipe; what people want to read goes to stderr, and as Markdown to the file that
    GITHUB_STEP_SUMMARY names. With --json stderr tells errors alone.
    """
    from cpu_pipeline.cli.output import Progress, patient
    from cpu_pipeline.core.errors import Interrupted, PartlyDone, PipelineError
    from cpu_pipeline.refresh import reconcile

    triggers = _triggers(only)
    paths = recipes or _all()
    require_own_names(paths)
    opened = open_store(store, store_remote)
    results: list[Refreshed] = []
    try:
        for path in paths:
            try:
                with Progress(quiet=as_json) as tell:
                    done = reconcile.refresh(
                        path,
                        opened,
                        out,
                        only=triggers,
                        jobs=jobs,
                        create_envs=create_envs,
                        dry_run=dry_run,
                        tell=tell,
                    )
            except Interrupted:
                raise
            except PipelineError as error:
                done = outcome.failed(path, out, error)
            results.append(done)
            with patient(sys.stdout):
                print(json.dumps(vars(done), ensure_ascii=False), flush=True)
            _tell(done, errors_alone=as_json)
            if done.exit_code and not keep_going:
                break
    finally:
        _summarize(results)
    codes = [done.exit_code for done in results if done.exit_code]
    if not codes:
        return 0
    return PartlyDone.exit_code if keep_going and len(codes) < len(paths) else codes[0]


def _triggers(only: str | None) -> list[Trigger]:
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.core.text import did_you_mean
    from cpu_pipeline.refresh.drift import TRIGGERS

    words = only.split(",") if only is not None else []
    for word in words:
        if word not in TRIGGERS:
            raise RecipeError(f"--only {word}: none of {', '.join(TRIGGERS)}{did_you_mean(word, TRIGGERS)}")
    return [trigger for trigger in TRIGGERS if trigger in words]


def _all() -> list[Path]:
    from cpu_pipeline.core.errors import RecipeError

    found = sorted(FOLDER.glob("*.yaml"))
    if not found:
        raise RecipeError(f"no recipe is named, and there is none in {FOLDER}/; name one, or go where they are")
    return found


def _summarize(results: Sequence[Refreshed]) -> None:
    """Tell CI's page; that it can't be told makes nothing that was done undone."""
    from cpu_pipeline.cli.options import warn
    from cpu_pipeline.refresh.summary import summary

    if place := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(place).open("a", encoding="utf-8") as file:
                file.write(summary([vars(done) for done in results]))
        except OSError as error:
            warn(f"GITHUB_STEP_SUMMARY: {place}: {error.strerror}")


def _tell(done: Refreshed, errors_alone: bool) -> None:
    from cpu_pipeline.cli.output import patient, plain

    with patient(sys.stderr):
        if done.exit_code:
            print(plain(f"{done.error}: {done.says}"), file=sys.stderr)
        if errors_alone or done.outcome == "refused":
            return
        if not done.exit_code:
            print(plain(f"{done.outcome}  {done.recipe}: {done.says}"), file=sys.stderr)
        for says in done.causes:
            print(plain(f"  because {says}"), file=sys.stderr)
        for says in done.ignored:
            print(plain(f"  not reacted to: {says}"), file=sys.stderr)
        for gate, found in done.changes.items():
            for says in found:
                print(plain(f"  {gate}: {says}"), file=sys.stderr)
        for version in done.removed:
            print(f"  removed the version {version}", file=sys.stderr)
