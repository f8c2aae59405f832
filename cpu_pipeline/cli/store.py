"""`cpu-pipeline store`: list, verify, shrink and share the store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json, StoreOption, open_store, warn

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import GcOutput, StoreVerifyOutput, SyncOutput
    from cpu_pipeline.graph.plan import Plan
    from cpu_pipeline.store.sync import Moved, StepRef

Url = Annotated[str, typer.Argument(metavar="URL", help="A folder, or an address that fsspec opens: s3://, gs://, ...")]
Chosen = Annotated[
    list[Path] | None,
    typer.Option("--recipe", metavar="RECIPE", help="The steps of this recipe and its lock alone; may be repeated."),
]

app = typer.Typer(help="List, verify, shrink and share the store.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(store: StoreOption = None, as_json: Json = False) -> None:
    """List the cached steps: stage, format, size, last use."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.core.text import size
    from cpu_pipeline.store import contents

    found = contents.entries(open_store(store))
    if as_json:
        print_json([vars(entry) for entry in found])
        return
    columns([(e.key[:12], e.stage, e.format, size(e.size), _date(e.used)) for e in found])


@app.command("stat")
def stat(store: StoreOption = None, as_json: Json = False) -> None:
    """Count records, objects and bytes."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.text import size
    from cpu_pipeline.store import contents

    opened = open_store(store)
    found = contents.stat(opened)
    if as_json:
        print_json({"root": str(opened.root), **vars(found), "formats": dict(found.formats)})
        return
    print(f"{opened.root}: {found.records} records, {found.objects} objects, {size(found.bytes)}")
    for name, (count, total) in sorted(found.formats.items()):
        print(f"  {name:12} {count:5}  {size(total)}")
    print(f"  leftovers          {size(found.leftovers)}")


@app.command("verify")
def verify(
    store: StoreOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged objects aside, drop records of nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Read every object and record whole; exit 7 when something is not what it claims."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.errors import Refused
    from cpu_pipeline.release.verify import verify_store

    opened = open_store(store)
    problems, foreign = verify_store(opened, repair=repair)
    if as_json:
        result: StoreVerifyOutput = {"problems": problems, "not_for_this_cpu": foreign}
        print_json(result)
    else:
        for problem in problems:
            print(f"{problem.kind:10} {problem.says}{' (mended)' if problem.mended else ''}")
        for found in foreign:
            print(f"foreign    {found.object[:12]} ({found.stage}): this CPU lacks {', '.join(found.lacks)}")
        print(f"{opened.root}: {len(problems)} problems")
    return Refused.exit_code if any(not p.mended for p in problems) else 0


@app.command("gc")
def gc(
    store: StoreOption = None,
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was used within so many days.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what was not used for a while, and leftovers; never what builds, locks or published versions use."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.text import size
    from cpu_pipeline.release import references
    from cpu_pipeline.store.gc import collect

    opened = open_store(store)
    roots = references.reader(opened)
    gone = collect(opened, roots, keep_days, dry_run=dry_run)
    rooted = len(roots().paths)
    if as_json:
        result: GcOutput = {"roots": rooted, "removed": gone}
        print_json(result)
        return
    for removal in gone:
        print(f"{removal.kind:8} {removal.path.name}  {size(removal.bytes)}")
    total = size(sum(r.bytes for r in gone))
    rooted_text = f"; kept what {rooted} locks and artifacts name" if rooted else ""
    print(f"{'would remove' if dry_run else 'removed'} {len(gone)} things, {total}{rooted_text}")


@app.command("push")
def push(
    url: Url,
    recipe: Chosen = None,
    store: StoreOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite damaged objects and different records of the other store.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy cached steps into another store, each record after its object; what it has already is not sent."""
    from cpu_pipeline.release.references import steps_of
    from cpu_pipeline.store import sync
    from cpu_pipeline.store.remote.client import Remote

    plans, remote = _plans(recipe), Remote(url, warn)
    _tell(
        "pushed",
        remote.shown,
        sync.push(open_store(store), remote, steps_of(plans), force=force, tell=_line("pushed")),
        as_json,
    )


@app.command("pull")
def pull(url: Url, recipe: Chosen = None, store: StoreOption = None, as_json: Json = False) -> None:
    """Bring what another store has into this one, verified; what is damaged there is left out with a warning."""
    from cpu_pipeline.release.references import steps_of
    from cpu_pipeline.store import sync
    from cpu_pipeline.store.remote.client import Remote

    plans, remote = _plans(recipe), Remote(url, warn)
    _tell("pulled", remote.shown, sync.pull(open_store(store), remote, steps_of(plans), _line("pulled")), as_json)


def _plans(recipes: list[Path] | None) -> list[Plan]:
    from cpu_pipeline import api

    return [api.plan(api.load_recipe(recipe)) for recipe in recipes or ()]


def _line(what: str) -> Callable[[StepRef], None]:
    from cpu_pipeline.cli.output import patient, plain
    from cpu_pipeline.core.text import size

    def tell(step: StepRef) -> None:
        with patient(sys.stderr):
            print(plain(f"{what:9} {step.name}  {step.key[:12]}  {size(step.bytes)}"), file=sys.stderr, flush=True)

    return tell


def _tell(what: str, url: str, done: Moved, as_json: bool) -> None:
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.core.text import size

    if as_json:
        result: SyncOutput = {
            "remote": url, "bytes": done.bytes, "moved": done.moved, "present": done.present, "missing": done.missing
        }  # fmt: skip
        print_json(result)
        return
    for step in done.missing:
        print(f"missing   {step.name or 'a record'}  {step.key[:12]}")
    if not (done.moved or done.present or done.missing):
        print(f"nothing to be {what}: {url}")
        return
    rest = f"{len(done.present)} were present, {len(done.missing)} missing"
    print(f"{what} {len(done.moved)} steps, {size(done.bytes)}; {rest}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
