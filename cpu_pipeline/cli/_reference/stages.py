"""docs/reference/stages.md: what each stage takes and gives, what its result depends on, and its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

from cpu_pipeline.cli._reference._fields import fields
from cpu_pipeline.cli._reference._markdown import code, codes, document, first_line, own, prose, table

if TYPE_CHECKING:
    from cpu_pipeline.stages._base import Stage

INTRO = """A recipe names a stage in `use:` and sets its options in `with:`. `cpu-pipeline stages NAME` prints the \
same options. A stage stores facts of each run; they are in `manifest.json` and in the output of `run --json`."""
INTERNAL = """The planner adds these steps. A recipe cannot `use:` them; it sets their options in `model:`, \
`tokenizer:` and `data:`."""
MANY = 3
"""More formats than these are all models."""


def page() -> str:
    """Return the page."""
    from cpu_pipeline import stages

    every = own(stages.registry, stages.names(internal=True))
    usable = [name for name in every if not stages.get(name).internal]
    internal = [name for name in every if stages.get(name).internal]
    rows = [(f"[`{n}`](#{n.replace('.', '')})", prose(first_line(stages.get(n)))) for n in usable]
    lines = [*table(("stage", "what it does"), rows)]
    lines += [line for name in usable for line in _section(name, "##")]
    lines += ["## Internal stages", "", INTERNAL, ""]
    lines += [line for name in internal for line in _section(name, "###")]
    return document("Stages", INTRO, lines)


def reproducible_table() -> str:
    """Return the table of docs/reproducible.md: which stages give the same bytes, and why the others do not."""
    from cpu_pipeline import stages

    rows = []
    for name in own(stages.registry, stages.names(internal=True)):
        why = stages.get(name).reproducible
        rows.append((code(name), "no" if why else "yes", prose(why)))
    return "\n".join(table(("stage", "the same bytes", "why not"), rows)[1:])


def _section(name: str, level: str) -> list[str]:
    from cpu_pipeline import stages
    from cpu_pipeline.cli._reference._options import options_table
    from cpu_pipeline.recipe import json_schema

    stage = stages.get(name)
    lines = [f"{level} {code(name)}", "", prose(first_line(stage)), ""]
    lines += table(("property", "value"), [(key, value) for key, value in _facts(stage).items() if value])
    return [*lines, *options_table(json_schema.model_schema(stage)), *_stored(stage)]


def _stored(stage: type[Stage]) -> list[str]:
    """Return the table of the facts that a stage stores."""
    if stage.facts_model is None:
        return []
    rows = [(code(name), code(field.type), prose(field.doc)) for name, field in fields(stage.facts_model).items()]
    return table(("fact", "type", "meaning"), rows)


def _facts(stage: type[Stage]) -> Mapping[str, str]:
    from cpu_pipeline.engine.support import formats_of

    blank = stage.model_construct()
    return {
        "takes": _inputs(stage),
        "gives": codes(sorted(formats_of(stage))) or "the format of its option `format`",
        "reads": codes(sorted(stage.reads)),
        "depends on the machine": HOSTS[blank.host()],
        "environment": code(blank.environment({})),
        "packages": codes(stage.packages),
        "network": "yes" if stage.online else "no",
        "runs alone": "yes: nothing else may run at the same time" if stage.alone else "",
        "reproducible": f"no: {prose(stage.reproducible)}" if stage.reproducible else "yes",
        "version": str(stage.version),
    }


HOSTS = {"none": "no", "isa": "its instruction sets", "machine": "all of it"}
"""`Stage.host()` -> words."""


def _inputs(stage: type[Stage]) -> str:
    return "; ".join(_input(stage, name, formats) for name, formats in stage.takes.items()) or "nothing"


def _input(stage: type[Stage], name: str, formats: Set[str]) -> str:
    notes = ["optional"] if name in stage.optional else []
    notes += [f"through {code(stage.through[name])}"] if name in stage.through else []
    return f"{code(name)}: {_formats(formats)}" + (f" ({', '.join(notes)})" if notes else "")


def _formats(formats: Iterable[str]) -> str:
    names = sorted(formats)
    return "any model" if len(names) > MANY else " or ".join(map(code, names))
