"""Write the report of a failed build to artifacts/NAME/failed/<run>/; the newest few are kept."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cpu_pipeline.core.files import remove_tree, writing
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release import flips, latest
from cpu_pipeline.release.candidate import Builder
from cpu_pipeline.release.failures import report
from cpu_pipeline.release.failures.data import FORMAT, Failure
from cpu_pipeline.release.manifest import describe
from cpu_pipeline.release.tree import REPORT, home_of, make_home, sync_tree
from cpu_pipeline.release.versions import sweep
from cpu_pipeline.stages._base import Verdict

FOLDER, JSON = "failed", "failure.json"
KEEP = 10
"""Reports that are kept of one recipe."""


def write_failure(
    built: BuildResult, verdicts: Mapping[str, Sequence[Verdict]], builder: Builder, out: Path, run: str
) -> Path:
    """Write why a build failed; nothing that is in service is touched.

    Args:
        built: a build without errors, some gate of which failed.
        verdicts: every gate that was asked.
        builder: judges the steps on the way to a candidate.
        out: it goes to `out/NAME/failed/<run>/`.
        run: id of the run.

    Returns:
        The directory, with report.md and failure.json.
    """
    home = home_of(built.plan, out)
    now = latest.in_service(home)
    version = latest.label(now.name) if now is not None else None
    failure = report.collect(built, verdicts, builder, run, version)
    with writing(out):
        make_home(home)
        folder = home / FOLDER
        folder.mkdir(exist_ok=True)
        work = home / f".failed.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            work.mkdir()
            (work / REPORT).write_text(report.render(failure, stays(failure)), encoding="utf-8", newline="\n")
            text = json.dumps(_document(failure, describe(built)), indent=1, sort_keys=True, ensure_ascii=False)
            (work / JSON).write_text(text + "\n", encoding="utf-8", newline="\n")
            flips.write(
                work / flips.FILE, [flip for gate in failure.gates for flip in flips.of_build(built, gate.gate)]
            )
            sync_tree(work)
            remove_tree(folder / run)
            work.rename(folder / run)
        finally:
            remove_tree(work)
        prune(home)
        sweep(home)
    return folder / run


def stays(failure: Failure) -> str:
    """Say what is in service now."""
    if failure.in_service is None:
        return "Nothing is put into service."
    return f"{failure.in_service} stays in service."


def failed_reports(home: Path) -> list[Path]:
    """List the reports of an artifact's failed builds, the oldest first: ids of runs begin with their time."""
    folder = home / FOLDER
    return (
        sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink()) if folder.is_dir() else []
    )


def prune(home: Path, keep: int = KEEP) -> None:
    """Remove all reports but the newest."""
    for path in failed_reports(home)[:-keep]:
        remove_tree(path)


def _document(failure: Failure, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {"failure": FORMAT, **asdict(failure), "manifest": manifest}
