"""`cpu-pipeline doctor`: what this machine is, what is installed, what works here."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence

from cpu_pipeline.cli.options import Json, StoreOption, open_store


def doctor(store: StoreOption = None, as_json: Json = False) -> None:
    """Show the CPU, its instruction sets, versions, and which stages and backends work here."""
    from cpu_pipeline import backends, stages, tasks
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.core import host
    from cpu_pipeline.core.text import size
    from cpu_pipeline.engine import environments, packages
    from cpu_pipeline.engine.environments import DEFAULT

    opened = open_store(store)
    existing = next(p for p in (opened.root, *opened.root.parents) if p.exists())
    names = stages.names(internal=True)
    homes = {name: stages.get(name).model_construct().environment({}) for name in names}
    lacking = {name: _lacks(stages.get(name).packages, environment) for name, environment in homes.items()}
    formats = {n: _lacks(backends.get(n).PACKAGES, backends.get(n).ENVIRONMENT) for n in backends.names()}
    distributions = sorted(
        {p for n, environment in homes.items() if environment == DEFAULT for p in stages.get(n).packages}
        | {p for n in formats if backends.get(n).ENVIRONMENT == DEFAULT for p in backends.get(n).PACKAGES}
        | {p for n in tasks.names() for p in tasks.get(n).packages}
    )
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        **host.machine(),
        "int8": "sums without overflow (VNNI)" if host.has_vnni() else "needs reduce_range: this CPU has no VNNI",
        "store": str(opened.root),
        "store_free": size(shutil.disk_usage(existing).free),
        "packages": {name: packages.installed(name) for name in distributions},
        "environments": {
            name: "ready" if environments.get(name).ready else "not made" for name in environments.names()
        },
        "stages": lacking,
        "backends": formats,
    }
    if as_json:
        print_json(found)
        return
    rows = [(k, " ".join(v) if isinstance(v, list) else str(v)) for k, v in found.items() if not isinstance(v, dict)]
    columns(rows)
    for title in ("packages", "environments", "stages", "backends"):
        print(f"\n{title}")
        part = found[title]
        if isinstance(part, dict):
            columns([(f"  {name}", _told(value)) for name, value in part.items()])


def _lacks(distributions: Sequence[str], environment: str) -> list[str]:
    """Name what is missing: packages here, or a whole environment."""
    from cpu_pipeline.engine import environments, packages
    from cpu_pipeline.engine.environments import DEFAULT

    if environment == DEFAULT:
        return packages.missing(distributions)
    return [] if environments.get(environment).ready else [f"environment {environment}"]


def _told(value: object) -> str:
    if isinstance(value, list):
        environments = [name.partition(" ")[2] for name in value if name.startswith("environment ")]
        mend = f"cpu-pipeline env create {environments[0]}" if environments else "pip install 'cpu-pipeline[build]'"
        return f"missing {', '.join(value)}; {mend}" if value else "works"
    return str(value)
