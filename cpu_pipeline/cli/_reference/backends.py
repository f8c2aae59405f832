"""docs/reference/backends.md: which model, precision and environment each backend supports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpu_pipeline.cli._reference._markdown import code, codes, doc, document, own, prose, table

if TYPE_CHECKING:
    from cpu_pipeline.engine.support import BackendSupport

INTRO = """A backend runs the artifacts of one format. `cpu-pipeline backends` reports which of them work on this \
machine; with `--model` it reports which support that model."""
OTHERS = {"refused": "no", "untried": "tried, and compared with the original"}
"""`BackendSupport.others` -> words."""


def page() -> str:
    """Return the page."""
    from cpu_pipeline import backends
    from cpu_pipeline.engine import support

    names = own(backends.registry, backends.names())
    ways = [way for way in support.backend_support() if way.format in names]
    rows = [
        (f"[`{way.format}`](#{way.format})", _stages(way), codes(way.precisions), codes(way.architectures),
         OTHERS[way.others], code(way.environment))
        for way in ways
    ]  # fmt: skip
    head = ("format", "built by", "precisions", "tested architectures", "other architectures", "environment")
    return document("Backends", INTRO, [*table(head, rows), *(line for way in ways for line in _section(way))])


def _section(way: BackendSupport) -> list[str]:
    from cpu_pipeline import backends, tasks

    backend = backends.get(way.format)
    facts = {
        "built by": _stages(way),
        "precisions": codes(way.precisions),
        "tested architectures": codes(way.architectures),
        "other architectures": OTHERS[way.others],
        "tasks": codes(own(tasks.registry, way.tasks)),
        "environment": code(way.environment),
        "packages": codes(way.packages),
        "status of the project": prose(way.status),
        "version": str(backend.VERSION),
    }
    about = [line for part in doc(backend).split("\n\n") for line in (prose(part), "")]
    return [f"## {way.format}", "", *about, *table(("property", "value"), facts.items())]


def _stages(way: BackendSupport) -> str:
    from cpu_pipeline import stages

    names = own(stages.registry, way.stages)
    return ", ".join(f"[`{name}`](stages.md#{name.replace('.', '')})" for name in names) or "the checkpoint itself"
