"""`cpu-pipeline verify`: is a version on disk what was written, and may this CPU run it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpu_pipeline.cli.options import Json


def verify(
    folder: Annotated[Path, typer.Argument(help="A version's folder, such as artifacts/NAME/latest.")],
    as_json: Json = False,
) -> None:
    """Re-hash a version against its manifest, and say whether this CPU may run each output."""
    from cpu_pipeline import host
    from cpu_pipeline.artifact import Card
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.errors import BackendMissing, RecipeError, Refused
    from cpu_pipeline.publish import MANIFEST, edited, read_manifest

    if not (folder / MANIFEST).is_file():
        raise RecipeError(f"{folder}: no {MANIFEST}; name a version's folder, such as artifacts/NAME/latest")
    if changed := edited(folder):
        raise Refused(f"{folder}: differs from its manifest: {', '.join(changed)}")
    manifest = read_manifest(folder)
    missing = {
        name: host.missing(Card.read(folder / name, output["format"]).needs)
        for name, output in manifest["outputs"].items()
    }
    if as_json:
        print_json({"folder": str(folder), "files": len(manifest["files"]), "missing_instruction_sets": missing})
    else:
        print(f"{folder}: {len(manifest['files'])} files as written")
        for name, lacks in missing.items():
            print(f"{name}: {'this CPU lacks ' + ', '.join(lacks) if lacks else 'runs on this CPU'}")
    if any(missing.values()):
        names = ", ".join(name for name, lacks in missing.items() if lacks)
        raise BackendMissing(f"{folder}: {names} cannot run on this CPU; build for it with `target: {{isa: ...}}`")
