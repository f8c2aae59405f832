"""Options of stages, tasks and sources, and the keys of recipes: one table for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cpu_pipeline.cli._reference._markdown import code, prose, table


def options_table(schema: Mapping[str, Any]) -> list[str]:
    """Return the table of a definition of schema.json: one row for each property."""
    required = schema.get("required", ())
    rows = [
        (code(key), code(type_name(prop)), default(prop, required=key in required), prose(prop.get("description", "")))
        for key, prop in schema.get("properties", {}).items()
    ]
    return table(("option", "type", "default", "meaning"), rows)


def default(prop: Mapping[str, Any], *, required: bool) -> str:
    """Return the cell of a default."""
    if required:
        return "required"
    return code(json.dumps(prop["default"], ensure_ascii=False)) if prop.get("default") is not None else ""


def type_name(prop: Any) -> str:
    """Name the type of a JSON Schema in one line, such as `list of string | null`."""
    if not isinstance(prop, Mapping):
        return "any"
    if "const" in prop:
        return json.dumps(prop["const"])
    if "enum" in prop:
        return " | ".join(json.dumps(value) for value in prop["enum"])
    for key in ("anyOf", "oneOf"):
        if key in prop:
            return " | ".join(dict.fromkeys(type_name(part) for part in prop[key]))
    if "$ref" in prop:
        return str(prop["$ref"].rpartition("/")[2])
    kinds = prop.get("type", "any")
    return " | ".join(_kind(kind, prop) for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _kind(kind: str, prop: Mapping[str, Any]) -> str:
    if kind == "array":
        items = prop.get("items", prop.get("prefixItems"))
        if isinstance(items, list):
            return f"({', '.join(map(type_name, items))})"
        return f"list of {_grouped(items)}" if items else "list"
    if kind == "object" and isinstance(prop.get("additionalProperties"), Mapping) and prop["additionalProperties"]:
        return f"object of {_grouped(prop['additionalProperties'])}"
    return _bounded(kind, prop)


def _grouped(items: Any) -> str:
    name = type_name(items)
    return f"({name})" if " | " in name else name


def _bounded(kind: str, prop: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(prop[key])}" for key, sign in signs.items() if key in prop]
    return " ".join([kind, *bounds]) if kind in ("integer", "number") else kind


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
