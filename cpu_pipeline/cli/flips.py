"""`cpu-pipeline flips`: the rows that the reference answers right and the candidate wrong, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpu_pipeline.cli.options import Json, StoreOption, open_store


def flips(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A version's folder (artifacts/NAME/latest), one of its outputs, or the report of a failed run.",
        ),
    ],
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """List every row that the reference answers right and the candidate wrong, and the other way round.

    Texts of the rows are shown where the store still has them.
    """
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns, plain
    from cpu_pipeline.release import flips as found_flips

    found = found_flips.read(folder, open_store(store))
    if as_json:
        print_json(found)
        return
    columns([(flip.way, flip.gate, plain(flip.id), plain(flip.score), plain(flip.says)) for flip in found])
    if not found:
        print("no row flipped")
