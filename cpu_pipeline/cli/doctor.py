"""`cpu-pipeline doctor`: what this machine is, what is installed, what works here."""

from __future__ import annotations

import platform
import shutil

from cpu_pipeline.cli.options import Json, StoreOption, open_store


def doctor(store: StoreOption = None, as_json: Json = False) -> None:
    """Show the CPU, its instruction sets, versions, and which stages and backends work here."""
    from cpu_pipeline import host, keys, registry
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.markdown import size

    opened = open_store(store)
    there = next(p for p in (opened.root, *opened.root.parents) if p.exists())
    lacking = {}
    for name in registry.stage_names(internal=True):
        stage = registry.stage_class(name)
        lacking[name] = keys.missing(list(stage.packages))
    backends = {name: keys.missing(list(registry.backend(name).PACKAGES)) for name in registry.formats()}
    packages = sorted(
        {p for n in lacking for p in registry.stage_class(n).packages}
        | {p for n in backends for p in registry.backend(n).PACKAGES}
        | {p for n in registry.task_names() for p in registry.task_class(n).packages}
    )
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        **host.machine(),
        "int8": "sums without overflow (VNNI)" if host.has_vnni() else "needs reduce_range: this CPU has no VNNI",
        "store": str(opened.root),
        "store_free": size(shutil.disk_usage(there).free),
        "packages": {name: keys.installed(name) for name in packages},
        "stages": lacking,
        "backends": backends,
    }
    if as_json:
        print_json(found)
        return
    rows = [(k, " ".join(v) if isinstance(v, list) else str(v)) for k, v in found.items() if not isinstance(v, dict)]
    columns(rows)
    for title in ("packages", "stages", "backends"):
        print(f"\n{title}")
        part = found[title]
        if isinstance(part, dict):
            columns([(f"  {name}", _told(value)) for name, value in part.items()])


def _told(value: object) -> str:
    if isinstance(value, list):
        return f"missing {', '.join(value)}; pip install 'cpu-pipeline[build]'" if value else "works"
    return str(value)
