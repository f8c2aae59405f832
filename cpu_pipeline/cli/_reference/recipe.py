"""docs/reference/recipe.md: every key of recipes and pipelines, from the classes behind schema.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpu_pipeline.cli._reference._examples import EXAMPLES
from cpu_pipeline.cli._reference._markdown import code, document, own, prose, table
from cpu_pipeline.cli._reference._options import default, type_name

if TYPE_CHECKING:
    from pydantic import BaseModel

INTRO = """A recipe describes what to build: a model, a task, data and a pipeline. A pipeline is a list of stages \
that several recipes can share. Both are YAML files; `cpu-pipeline check FILE` checks them, and `cpu-pipeline schema` \
prints their JSON Schema for editors. An unknown key is an error. Paths are relative to the recipe's directory."""
SECTIONS = {
    "Recipe": ("The recipe file", "One file describes one artifact. It needs `pipeline` or `stages`, not both."),
    "Use": ("`task` with options", "`task` is a task's name, or an object with these keys."),
    "Target": ("`target`", ""),
    "Refresh": ("`refresh`", ""),
    "Pipeline": ("The pipeline file", ""),
    "Step": ("A step of `stages`", "The keys of one step, in a recipe or a pipeline."),
}
"""Class of recipe/spec.py -> title, and a line before its table; its docstring when there is none."""
PARTS = {
    "model": "`model` and `teacher`",
    "tokenizer": "`tokenizer`",
    "data": "A role of `data`",
}
"""What is fetched -> title."""


def page() -> str:
    """Return the page."""
    from cpu_pipeline.recipe import json_schema, spec

    definitions = json_schema.schema()["definitions"]
    lines: list[str] = []
    for name, (title, intro) in SECTIONS.items():
        lines += _section(getattr(spec, name), title, intro)
    for want, title in PARTS.items():
        lines += _sources(want, title, definitions)
    return document("Recipes and pipelines", INTRO, lines)


def _section(model: type[BaseModel], title: str, intro: str) -> list[str]:
    from cpu_pipeline.cli._reference._markdown import first_line
    from cpu_pipeline.recipe import json_schema

    schema = json_schema.model_schema(model)
    examples = EXAMPLES[model.__name__]
    rows = [_row(key, prop, schema, examples) for key, prop in schema["properties"].items()]
    return [f"## {title}", "", intro or prose(first_line(model)), "", *_keys(rows)]


def _sources(want: str, title: str, definitions: Mapping[str, Any]) -> list[str]:
    from cpu_pipeline import sources
    from cpu_pipeline.cli._reference._markdown import first_line

    names = own(sources.registry, sources.names(want))
    lines = [f"## {title}", "", f"Exactly one of these keys names the source: {', '.join(map(code, names))}.", ""]
    for name in names:
        schema, examples = definitions[f"{want}.{name}"], EXAMPLES[name]
        rows = [_row(key, prop, schema, examples) for key, prop in schema["properties"].items()]
        lines += [f"### {want}: {name}", "", prose(first_line(sources.get(name))), "", *_keys(rows)]
    return lines


def _keys(rows: list[tuple[str, ...]]) -> list[str]:
    return table(("key", "type", "default", "meaning", "example"), rows)


def _row(key: str, prop: Mapping[str, Any], schema: Mapping[str, Any], examples: Mapping[str, str]) -> tuple[str, ...]:
    return (
        code(key), code(type_name(prop)), default(prop, required=key in schema.get("required", ())),
        prose(prop["description"]), code(f"{key}: {examples[key]}"),
    )  # fmt: skip
