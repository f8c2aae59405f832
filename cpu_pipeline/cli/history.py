"""`cpu-pipeline history`, `status`, `rollback`: what was done, whether it is fresh, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json, StoreOption, open_store, warn

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import HistoryOutput, RollbackOutput, State, VersionEntry
    from cpu_pipeline.store.runs.reader import RunEntry

Out = Annotated[Path, typer.Option(help="Where NAME/<version>/ and NAME/latest are.")]


def history(
    name: Annotated[str | None, typer.Argument(help="A recipe's name; everything when none is given.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs to show, newest first.")] = 20,
    reindex: Annotated[bool, typer.Option("--reindex", help="Rebuild the index from the directories of runs.")] = False,
    store: StoreOption = None,
    out: Out = Path("artifacts"),
    as_json: Json = False,
) -> None:
    """List the runs, newest first; with NAME also its versions, and which of them is in service."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns, plain
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.core.text import did_you_mean
    from cpu_pipeline.store.runs import index, recorder

    opened = open_store(store)
    if reindex:
        count = index.rebuild(opened)
        if not as_json:
            print(f"{opened.root / index.NAME}: {count} runs")
    found = recorder.runs(opened)
    known = {entry.name for entry in found} | {path.name for path in out.glob("*") if path.is_dir()}
    if name is not None and name not in known:
        known_too = f"; known are: {', '.join(sorted(known))}" if known else ""
        raise RecipeError(f"{name}: nothing of that name was run{did_you_mean(name, known)}{known_too}")
    shown = [entry for entry in found if name is None or entry.name == name][:limit]
    versions = [] if name is None else _versions(out / name)
    if as_json:
        result: HistoryOutput = {"runs": shown}
        if name is not None:
            result["versions"] = versions
        print_json(result)
        return
    columns([tuple(plain(cell) for cell in _row(entry)) for entry in shown])
    if versions:
        print()
        columns([(v["version"], _local(v["when"]), v["by"], v["state"]) for v in versions])


def rollback(
    name: Annotated[str, typer.Argument(help="The artifact's name: its recipe's.")],
    version: Annotated[
        str | None, typer.Argument(help="The version to put into service; the one before when none is given.")
    ] = None,
    out: Out = Path("artifacts"),
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Put an earlier version back into service; `refresh` does not promote again what that takes out."""
    from cpu_pipeline import api
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.progress import Progress

    with Progress(quiet=as_json) as tell:
        before, after = api.rollback(name, version, out, store=store, tell=tell)
    if as_json:
        result: RollbackOutput = {"name": name, "from": before, "to": after}
        print_json(result)
    elif before == after:
        print(f"unchanged  {name}: {after} is in service already")
    else:
        print(f"{name}: {before or 'nothing'} → {after}")


def status(
    recipes: Annotated[
        list[Path] | None,
        typer.Argument(help="Recipe files; those of recipes/ that have a lock or artifacts when none is named."),
    ] = None,
    max_age: Annotated[str, typer.Option(help="How old what is in service may be, such as 36h, 8d or 2w.")] = "8d",
    out: Out = Path("artifacts"),
    store: StoreOption = None,
    as_json: Json = False,
) -> int:
    """Show what is in service, since when, and how the last run ended; exit 5 when anything is too old or failing."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns, fail, plain
    from cpu_pipeline.core.errors import Stale
    from cpu_pipeline.refresh import status as standing

    most = standing.duration(max_age)
    found = standing.status(recipes or standing.recipes(out), open_store(store), out, most)
    for recipe in found:
        for problem in recipe.warnings:
            warn(f"{recipe.name}: {problem}")
    if as_json:
        print_json([vars(recipe) for recipe in found])
    else:
        rows = []
        for recipe in found:
            age = "never" if recipe.age is None else f"fresh {standing.ago(recipe.age)} ago"
            last = "no run is known" if recipe.last is None else f"last run {recipe.last}"
            now = ", one is running" if recipe.running else ""
            state = "wrong" if recipe.problems else "ok"
            service = (recipe.version or "none") + (" (rolled back)" if recipe.rolled_back else "")
            rows.append((state, recipe.name, service, age, f"lock {recipe.lock}", last + now))
        columns(rows)
    wrong = [f"{recipe.name}: {problem}" for recipe in found for problem in recipe.problems]
    return fail(Stale(plain("\n".join(wrong)))) if wrong else 0


def _row(entry: RunEntry) -> tuple[str, ...]:
    code = f" ({entry.exit_code})" if entry.exit_code else ""
    return (
        entry.id,
        _local(entry.started),
        entry.command,
        entry.name,
        entry.outcome + code,
        entry.version or "-",
        entry.says[:200] + entry.report_end(),
    )


def _versions(home: Path) -> list[VersionEntry]:
    """Describe the versions of an artifact, the one put into service last first."""
    from cpu_pipeline.release import latest, promotions, versions
    from cpu_pipeline.release.manifest import edited

    moves = {one.version: one for one in promotions.promoted(home)}
    service, rejected = latest.label(latest.latest(home)), promotions.rejected(home)
    found: list[VersionEntry] = []
    for name in reversed(versions.versions(home)):
        move = moves.get(name)
        damaged = any(edited(home / name))
        state: State = (
            "damaged" if damaged else "in service" if name == service else "rolled back" if name in rejected else ""
        )
        found.append(
            {"version": name, "when": move.when if move else None, "by": move.by if move else "", "state": state}
        )
    return found


def _local(text: str | None) -> str:
    """Write a time for people, by their clock."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text or "").astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return "?"
