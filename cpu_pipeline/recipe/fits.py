"""Say quickly whether a value fits a schema of ours. What does not fit is explained by jsonschema, which loads slowly.

Only the keywords of draft-07 that `json_schema` writes are known; with any other one nothing fits, and jsonschema
decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}
SILENT = frozenset({"$schema", "title", "description", "default", "format", "definitions", "then", "else"})
"""Keywords that ask for nothing by themselves."""


def fits(schema: Any, value: Any, definitions: Mapping[str, Any]) -> bool:
    """Say whether a value fits a schema; False also where that is not known here."""
    if isinstance(schema, bool):
        return schema
    return all(
        keyword in SILENT or (keyword in RULES and RULES[keyword](rule, value, schema, definitions))
        for keyword, rule in schema.items()
    )


def _ref(rule: str, value: Any, _: Any, definitions: Mapping[str, Any]) -> bool:
    return fits(definitions[rule.removeprefix("#/definitions/")], value, definitions)


def _type(rule: Any, value: Any, _: Any, __: Any) -> bool:
    return any(TYPES[kind](value) for kind in ([rule] if isinstance(rule, str) else rule))


def _one_of(rule: list[Any], value: Any, _: Any, __: Any) -> bool:
    return any(type(each) is type(value) and each == value for each in rule)


def _properties(rule: Mapping[str, Any], value: Any, _: Any, definitions: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    return all(fits(rule[key], inner, definitions) for key, inner in value.items() if key in rule)


def _additional(rule: Any, value: Any, schema: Any, definitions: Mapping[str, Any]) -> bool:
    known = schema.get("properties", {})
    others = [inner for key, inner in value.items() if key not in known] if isinstance(value, dict) else []
    return all(fits(rule, inner, definitions) for inner in others)


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else []


def _items(rule: Any, value: Any, _: Any, definitions: Mapping[str, Any]) -> bool:
    if isinstance(rule, list):
        return False  # a schema for each position: ours have none
    return not isinstance(value, list) or all(fits(rule, inner, definitions) for inner in value)


def _if(rule: Any, value: Any, schema: Any, definitions: Mapping[str, Any]) -> bool:
    return fits(schema.get("then" if fits(rule, value, definitions) else "else", True), value, definitions)


def _number(compare: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    return lambda rule, value, *_: not TYPES["number"](value) or compare(value, rule)


def _size(
    kind: type[list[Any]] | type[dict[str, Any]] | type[str], compare: Callable[[int, int], bool]
) -> Callable[..., bool]:
    return lambda rule, value, *_: not isinstance(value, kind) or compare(len(value), rule)


RULES: Mapping[str, Callable[..., bool]] = {
    "$ref": _ref,
    "type": _type,
    "enum": _one_of,
    "const": lambda rule, value, *_: _one_of([rule], value, None, None),
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": lambda rule, value, _, known: all(fits(rule, key, known) for key in _keys(value)),
    "minProperties": _size(dict, lambda size, rule: size >= rule),
    "maxProperties": _size(dict, lambda size, rule: size <= rule),
    "items": _items,
    "required": lambda rule, value, *_: not isinstance(value, dict) or all(key in value for key in rule),
    "pattern": lambda rule, value, *_: not isinstance(value, str) or re.search(rule, value) is not None,
    "minimum": _number(lambda value, rule: value >= rule),
    "maximum": _number(lambda value, rule: value <= rule),
    "exclusiveMinimum": _number(lambda value, rule: value > rule),
    "exclusiveMaximum": _number(lambda value, rule: value < rule),
    "minItems": _size(list, lambda size, rule: size >= rule),
    "maxItems": _size(list, lambda size, rule: size <= rule),
    "minLength": _size(str, lambda size, rule: size >= rule),
    "allOf": lambda rule, value, _, known: all(fits(each, value, known) for each in rule),
    "anyOf": lambda rule, value, _, known: any(fits(each, value, known) for each in rule),
    "not": lambda rule, value, _, known: _is_known(rule) and not fits(rule, value, known),
    "if": _if,
}
"""Keyword -> whether a value keeps to it, given the rule, the value, the schema around and all definitions."""


def _is_known(schema: Any) -> bool:
    """Say whether every keyword of a plain schema is known here: else that it does not fit says nothing."""
    return isinstance(schema, bool) or schema.keys() <= {*SILENT, "required", "type", "const", "enum"}
