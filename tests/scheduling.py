"""A project whose recipes have schedules, and names that every kind of quoting has trouble with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from project import write_model

ODD = 'it\'s $(HF_TOKEN) ${{ 1 }} `id` %h% "q" back\\slash *é'
"""A file may be called so: quotes, expansions of shell, GitHub, systemd and Kubernetes, cron's `%`, a wildcard."""
REMOTE = "s3://bucket/store"


def write_recipe(project: Path, name: str, refresh: str | None, more: str = "") -> Path:
    """Write a recipe with what it says under `refresh:`, on line 5."""
    path = project / "recipes" / f"{name}.yaml"
    if not (path.parent / "model").exists():
        write_model(path.parent / "model")
    lines = ["model: {folder: model}", "task: text-classification", "stages:", "  - {id: float, use: export.onnx}"]
    path.write_text("\n".join([*lines, f"refresh: {refresh}" if refresh else "", more, ""]), encoding="utf-8")
    return path


def write_project(project: Path) -> Path:
    """Write recipes of two schedules: two of them daily at a full hour, one at half hours on two dates or Fridays."""
    write_recipe(project, "alpha", '{cron: "0 3 * * *"}')
    write_recipe(project, ODD, '{cron: "0 3 * * *", on: [model, recipe]}')
    write_recipe(project, "weekly", '{cron: "30 4 1,15 * fri", on: [model]}', "target: {threads: 3}")
    write_recipe(project, "by-hand", "{follow: main}")
    write_recipe(project, "plain", None)
    return project


def record_calls(folder: Path, codes: Mapping[str, int]) -> Path:
    """Put a `cpu-pipeline` into a folder that notes what it is called with; its verb decides how it ends."""
    folder.mkdir(exist_ok=True)
    script = folder / "cpu-pipeline"
    script.write_text(
        f"#!{sys.executable}\nimport json, sys\nwords = sys.argv[1:]\n"
        "print('said by', words[0])\n"
        f"open({str(folder / 'calls')!r}, 'a').write(json.dumps(words) + '\\n')\n"
        f"sys.exit({dict(codes)!r}.get(' '.join(words[:2]), {dict(codes)!r}.get(words[0], 0)))\n"
    )
    script.chmod(0o755)
    return folder


def calls(folder: Path) -> list[list[str]]:
    """Return what the recording `cpu-pipeline` was called with, and forget it."""
    path = folder / "calls"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def shell(script: str, path: Path, cwd: Path, *shell: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the recording command in front of everything else."""
    return subprocess.run(
        [*(shell or ("/bin/sh", "-c")), script],
        cwd=cwd, env={"PATH": f"{path}:/usr/bin:/bin", "HOME": str(cwd)}, text=True, capture_output=True,
    )  # fmt: skip
