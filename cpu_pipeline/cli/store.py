"""`cpu-pipeline store`: what the store holds, whether it is sound, and making room."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cpu_pipeline.cli.options import Json, StoreOption, open_store

app = typer.Typer(help="Look into the store, verify it, make room.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(store: StoreOption = None, as_json: Json = False) -> None:
    """List what was built: stage, format, size, last use."""
    from cpu_pipeline import upkeep
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.markdown import size

    found = upkeep.entries(open_store(store))
    if as_json:
        print_json([vars(entry) for entry in found])
        return
    columns([(e.key[:12], e.stage, e.format, size(e.size), _date(e.used)) for e in found])


@app.command("stat")
def stat(store: StoreOption = None, as_json: Json = False) -> None:
    """Count records, objects and bytes."""
    from cpu_pipeline import upkeep
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.markdown import size

    opened = open_store(store)
    found = upkeep.stat(opened)
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
    from cpu_pipeline import host, upkeep
    from cpu_pipeline.artifact import Card
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.errors import Refused

    opened = open_store(store)
    found = upkeep.verify(opened, repair)
    foreign = []
    for entry in upkeep.entries(opened):
        if lacks := host.missing(Card.read(opened.path_of(entry.object), entry.format).needs):
            foreign.append({"object": entry.object, "stage": entry.stage, "lacks": lacks})
    if as_json:
        print_json({"problems": [vars(p) for p in found], "not_for_this_cpu": foreign})
    else:
        for problem in found:
            print(f"{problem.kind:10} {problem.says}{' (mended)' if problem.mended else ''}")
        for one in foreign:
            print(f"foreign    {one['object'][:12]} ({one['stage']}): this CPU lacks {', '.join(one['lacks'])}")
        print(f"{opened.root}: {len(found)} problems")
    return Refused.exit_code if any(not p.mended for p in found) else 0


@app.command("gc")
def gc(
    store: StoreOption = None,
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was used within so many days.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what was not used for a while, and leftovers; never what a running build uses."""
    from cpu_pipeline import upkeep
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.markdown import size

    gone = upkeep.gc(open_store(store), keep_days, dry_run)
    if as_json:
        print_json([vars(r) for r in gone])
        return
    for removal in gone:
        print(f"{removal.kind:8} {removal.path.name}  {size(removal.bytes)}")
    total = size(sum(r.bytes for r in gone))
    print(f"{'would remove' if dry_run else 'removed'} {len(gone)} things, {total}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
