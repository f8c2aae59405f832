"""The generated tables of documents: stages, which of them give the same bytes, tasks, ways to run a model."""

from __future__ import annotations

import inspect
import re

from cpu_pipeline import stages, tasks
from cpu_pipeline.engine import support

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return the text with each `<!-- generated: NAME -->` block written again."""
    tables = {"stages": _stages, "reproducible": _reproducible, "tasks": _tasks, "ways": _ways}
    return _BLOCK.sub(lambda m: m[1] + tables[m[2]]() + m[3], text)


def _stages() -> str:
    rows = []
    for name in stages.names():
        stage = stages.get(name)
        takes = ", ".join(f"{key}: {_formats(formats)}" for key, formats in stage.takes.items())
        rows.append(f"| `{name}` | {takes} | {_line(stage)} |")
    return "\n".join(["| stage | takes | what it does |", "|---|---|---|", *rows]) + "\n"


def _reproducible() -> str:
    rows = []
    for name in stages.names(internal=True):
        why = stages.get(name).reproducible
        rows.append(f"| `{name}` | {'no' if why else 'yes'} | {why.replace('|', chr(92) + '|')} |")
    return "\n".join(["| stage | the same bytes | why not |", "|---|---|---|", *rows]) + "\n"


def _formats(formats: object) -> str:
    names = sorted(formats)  # type: ignore[call-overload]  # a set of names
    return "any model" if len(names) > 3 else " or ".join(names)


def _tasks() -> str:
    rows = []
    for name in tasks.names():
        task = tasks.get(name)
        rows.append(f"| `{name}` | {', '.join(f'`{c}`' for c in task.columns)} | {', '.join(task.metrics)} |")
    return "\n".join(["| task | columns | metrics, the usual one first |", "|---|---|---|", *rows]) + "\n"


def _ways() -> str:
    rows = []
    for way in support.backend_support():
        makers = ", ".join(f"`{stage}`" for stage in way.stages) or "the checkpoint itself"
        others = "" if way.others == "refused" else ", others tried"
        cells = (
            f"`{way.format}`", way.about, makers, ", ".join(way.precisions), ", ".join(way.architectures) + others,
            way.environment, way.status,
        )  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    head = [
        "| format | how it is run | made by | precisions | architectures | environment | upstream |",
        "|" + "---|" * 7,
    ]
    return "\n".join([*head, *rows]) + "\n"


def _line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0].replace("|", "\\|")
