"""`cpu-pipeline verify`: is a version on disk what was written, and may this CPU run it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import VerifyOutput


def verify(
    folder: Annotated[Path, typer.Argument(help="A version's folder, such as artifacts/NAME/latest.")],
    as_json: Json = False,
) -> int:
    """Hash a version again, check its provenance, and report whether this CPU can run each output."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import fail
    from cpu_pipeline.core.errors import BackendMissing
    from cpu_pipeline.release import verify as check

    found = check.verify(folder)
    if as_json:
        result: VerifyOutput = {
            "folder": str(folder),
            "name": found.name,
            "version": found.version,
            "files": found.files,
            "missing_instruction_sets": found.missing,
        }
        print_json(result)
    else:
        lines = f"{found.files} files as written, and provenance.json says what they were made of"
        print(f"{folder}: version {found.version}: {lines}")
        for name, lacks in found.missing.items():
            print(f"{name}: {'this CPU lacks ' + ', '.join(lacks) if lacks else 'runs on this CPU'}")
    wrong = ", ".join(name for name, lacks in found.missing.items() if lacks)
    lines = f"{folder}: {wrong} cannot run on this CPU; build for it with `target: {{isa: ...}}`"
    return fail(BackendMissing(lines)) if wrong else 0
