"""Explain errors of JSON Schema in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe.document import Keys, Problem

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError


PATTERNS = {
    "revision": "a full commit: 40 hexadecimal digits, in quotes",
    "hub": "a repository as `owner/name`",
    "id": "a name: small letters, digits, - and _, beginning with a letter",
    "pipeline": "a name: small letters, digits, - and _, beginning with a letter",
}


RANGES = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def explain(error: ValidationError, before: Keys) -> Iterator[Problem]:
    """Explain an error of jsonschema.

    Args:
        error: what jsonschema found.
        before: the location of the value that was validated, within its document.
    """
    keys: Keys = (*before, *error.absolute_path)
    value: Any = error.instance
    rule: Any = error.validator_value
    schema: Any = error.schema
    match error.validator:
        case "additionalProperties":
            known = schema.get("properties", {})
            for key in value.keys() - known.keys():
                hint = f"; there are: {', '.join(sorted(known))}" if known else ""
                yield Problem((*keys, key), f"unknown key `{key}`{did_you_mean(key, known) or hint}")
        case "required":
            for key in (k for k in rule if k not in value):
                yield Problem(keys, f"`{key}` is missing")
        case "enum" | "const":
            words = [str(k) for k in (rule if isinstance(rule, list) else [rule]) if k is not None]
            known = f"; there are: {', '.join(words)}"
            yield Problem(keys, f"`{value}` is not one of the known values{did_you_mean(str(value), words)}{known}")
        case "type":
            yield Problem(keys, f"must be {_types(rule)}, is {_shown(value)}{_quote_hint(rule, value)}")
        case "pattern":
            key = next((str(k) for k in reversed(keys) if isinstance(k, str)), "")
            message = f"`{value}` is not {PATTERNS.get(key, f'of the form {rule}')}"
            if key == "revision":
                message += f"; a branch moves: `cpu-pipeline pin OWNER/NAME {value}` prints its commit"
            yield Problem(keys, message)
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            yield Problem(keys, f"must be {RANGES[error.validator]} {rule}, is {value}")
        case "minItems" if rule == 1:
            yield Problem(keys, "must hold at least one entry")
        case "anyOf" | "oneOf" if error.context:
            yield from _best_branch(error, keys)
        case "not" if isinstance(rule, dict) and "required" in rule:
            yield Problem(keys, f"`{'` and `'.join(rule['required'])}` cannot both be given")
        case _:
            yield Problem(keys, " ".join(str(error.message).split()))


def _best_branch(error: ValidationError, keys: Keys) -> Iterator[Problem]:
    """Explain a choice: the missing keys when each branch requires one, otherwise all the types that are valid."""
    branches: Any = error.validator_value
    needed = [b["required"][0] for b in branches if set(b) == {"required"}]
    if len(needed) == len(branches):
        yield Problem(keys, f"needs one of: {', '.join(f'`{k}`' for k in needed)}")
        return
    kinds = [b.get("type", "") for b in branches]
    value = error.instance
    deeper = [e for e in error.context or () if e.validator != "type"]
    if deeper and not isinstance(value, (dict, list)):
        first = deeper[0]
        yield from explain(first, keys[: len(keys) - len(error.absolute_path)])
    elif deeper:
        for nested in deeper:
            yield from explain(nested, keys[: len(keys) - len(error.absolute_path)])
    else:
        wanted = " or ".join(dict.fromkeys(_types(k) for k in kinds if k))
        yield Problem(keys, f"must be {wanted}, is {_shown(value)}{_quote_hint(kinds, value)}")


def _types(rule: Any) -> str:
    names = {"string": "text", "object": "keys and values", "array": "a list", "null": "nothing",
             "integer": "a whole number", "number": "a number", "boolean": "true or false"}  # fmt: skip
    kinds = rule if isinstance(rule, list) else [rule]
    return " or ".join(names.get(k, str(k)) for k in kinds)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _quote_hint(rule: Any, value: Any) -> str:
    wants_text = "string" in (rule if isinstance(rule, list) else [rule])
    return "; put it in quotes" if wants_text and isinstance(value, (int, float)) else ""
