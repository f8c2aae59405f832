"""docs/reference/tasks.md: the columns, metrics and options of each task."""

from __future__ import annotations

from cpu_pipeline.cli._reference._markdown import code, codes, document, first_line, own, prose, table

INTRO = """A recipe names its task in `task:`: `task: NAME`, or `task: {use: NAME, with: {OPTION: VALUE}}`. \
`cpu-pipeline tasks NAME` prints the same options."""

HOLDS = {"text": "text", "label": "a label: name or number", "number": "a number", "json": "a list or object (JSON)"}
"""Kind of a column -> what its cells hold."""


def page() -> str:
    """Return the page."""
    from cpu_pipeline import tasks

    names = own(tasks.registry, tasks.names())
    rows = [(f"[`{name}`](#{name})", prose(first_line(tasks.get(name)))) for name in names]
    lines = [*table(("task", "what the model does"), rows)]
    return document("Tasks", INTRO, [*lines, *(line for name in names for line in _section(name))])


def _section(name: str) -> list[str]:
    from cpu_pipeline import tasks
    from cpu_pipeline.cli._reference._options import options_table
    from cpu_pipeline.recipe import json_schema

    task = tasks.get(name)
    facts = {
        "metrics, the default first": codes(task.metrics),
        "metrics are printed": "in percent" if task.percent else "as numbers",
        "class of transformers": code(task.auto_class),
        "outputs of the model": codes(task.outputs),
        "outputs are": "one value for each token" if task.per_token else "one value for each input",
        "length is counted in": task.unit,
        "pipeline tag on the Hub": code(task.pipeline_tag),
        "packages": codes(task.packages),
        "version": str(task.version),
    }
    columns = [
        (code(column), _yes(needed), HOLDS[task.kinds.get(column, "text")], _yes(column in task.files))
        for column, needed in task.columns.items()
    ]
    return [
        f"## {name}", "", prose(first_line(task)), "",
        *table(("property", "value"), facts.items()),
        *table(("column of a row", "required", "holds", "names a file"), columns),
        *options_table(json_schema.model_schema(task)),
    ]  # fmt: skip


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
