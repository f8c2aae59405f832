"""Messages between a build and its worker processes: JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import Artifact


def told(artifact: Artifact) -> dict[str, Any]:
    return {**vars(artifact), "path": str(artifact.path), "facts": dict(artifact.facts)}


def request(
    use: str,
    options: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    out: Path,
    **rest: Any,
) -> dict[str, Any]:
    """Write what a child is asked to run; `rest` is task, data, scratch, threads, isa, allow, log and where."""
    inputs_told = {name: told(artifact) for name, artifact in inputs.items()}
    return {"do": "run", "use": use, "options": dict(options), "inputs": inputs_told, "out": str(out), **rest}


def heard(said: Mapping[str, Any]) -> Artifact:
    return Artifact(said["format"], Path(said["path"]), said["digest"], said["facts"])
