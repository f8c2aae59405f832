"""docs/reference/json.md: the fields of each `--json` output, from its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpu_pipeline.cli._reference import schemas
from cpu_pipeline.cli._reference._markdown import code, document, prose, table
from cpu_pipeline.cli._reference._options import type_name

INTRO = """With `--json` a command prints its result as JSON on stdout. Messages go to stderr. Each output has a JSON \
Schema (draft 2020-12). Objects with known fields have no others: a new field changes the schema. If the command ends \
with an error, stdout has an [error](#error) object."""


def page() -> str:
    """Return the page."""
    names = list(schemas.outputs())
    rows = [(f"[{code(_title(n))}](#{anchor(n)})", f"[{n}](json/{schemas.file_name(n)}.json)") for n in names]
    lines = table(("output", "schema"), [(link, file) for link, file in rows])
    return document("JSON output", INTRO, [*lines, *(line for name in names for line in _section(name))])


def anchor(output: str) -> str:
    """Return the anchor of an output's section."""
    return output.replace(" ", "-")


def _title(output: str) -> str:
    return output if output == "error" else f"cpu-pipeline {output}"


def _section(output: str) -> list[str]:
    schema = schemas.schema(output)
    definitions = schema.get("$defs", {})
    named = schema if "properties" in schema else {}
    file = f"json/{schemas.file_name(output)}.json"
    lines = [f"## {output}", "", f"Schema: [{file}]({file}). {schemas.outputs()[output].note}".rstrip(), ""]
    if named:
        lines += [prose(named["description"]), "", *_fields(named)]
    else:
        lines += [f"Type: {code(type_name(schema))}.", ""]
    for name, definition in definitions.items():
        lines += [f"{code(name)}: {prose(definition.get('description', ''))}", "", *_fields(definition)]
    return lines


def _fields(schema: Mapping[str, Any]) -> list[str]:
    rows = [
        (code(name), code(type_name(prop)), "yes" if name in schema["required"] else "no",
         prose(prop.get("description", "")))
        for name, prop in schema["properties"].items()
    ]  # fmt: skip
    return table(("field", "type", "always", "meaning"), rows)
