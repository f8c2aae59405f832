"""`cpu-pipeline diff`: what changed between two versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpu_pipeline.cli.options import Json


def diff(
    old: Annotated[Path, typer.Argument(help="The folder of a version, such as artifacts/NAME/<version>.")],
    new: Annotated[Path, typer.Argument(help="Another one, such as artifacts/NAME/latest.")],
    as_json: Json = False,
) -> None:
    """Say what changed between two versions: recipe, packages, options, sizes, operators, metrics, latency."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns, plain
    from cpu_pipeline.diff import diff as compare

    found = compare(old, new)
    if as_json:
        print_json([vars(change) for change in found])
        return
    columns([(change.kind, change.of, plain(change.says)) for change in found])
    if not found:
        print("nothing changed")
