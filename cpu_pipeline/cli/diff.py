"""`cpu-pipeline diff`: what changed between two versions, or two runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cpu_pipeline.cli.options import Json, StoreOption, open_store


def diff(
    old: Annotated[
        str, typer.Argument(help="The folder of a version, such as artifacts/NAME/<version>, or a run's id or folder.")
    ],
    new: Annotated[str, typer.Argument(help="Another one, such as artifacts/NAME/latest.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Say what changed between two versions or runs: recipe, packages, options, sizes, operators, metrics, latency."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns, plain
    from cpu_pipeline.release.diff import diff as compare

    found = compare(old, new, open_store(store))
    if as_json:
        print_json([vars(change) for change in found])
        return
    columns([(change.kind, change.of, plain(change.says)) for change in found])
    if not found:
        print("nothing changed")
