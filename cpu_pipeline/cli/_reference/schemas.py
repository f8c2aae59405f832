"""docs/reference/json: the JSON Schema (2020-12) of each `--json` output, derived from the types of the code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpu_pipeline.cli._reference._fields import fields
from cpu_pipeline.cli._reference._markdown import doc

if TYPE_CHECKING:
    from cpu_pipeline.cli.json_outputs import Output

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def outputs() -> Mapping[str, Output]:
    """Return the output of each command with `--json`, and those of no single command."""
    from cpu_pipeline.cli.json_outputs import OTHERS, OUTPUTS

    return {**OUTPUTS, **OTHERS}


def texts() -> dict[str, str]:
    """Return the text of every schema by the name of its file."""
    return {file_name(name): json.dumps(schema(name), indent=1, ensure_ascii=False) + "\n" for name in outputs()}


def file_name(output: str) -> str:
    """Return the name of an output's file: `run-rebuild` for `run --rebuild`."""
    return "-".join(output.replace("-", " ").split())


def schema(output: str) -> dict[str, Any]:
    """Return the schema of one output. Objects allow no other keys, where their keys are known."""
    from pydantic import TypeAdapter

    made = TypeAdapter(outputs()[output].type).json_schema(mode="serialization", schema_generator=_generator())
    return {"$schema": DIALECT, "title": f"cpu-pipeline {output}", **_plain(made)}


def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Add the docstrings of classes and fields."""

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            return _closed(super().dataclass_schema(schema), schema["cls"], every=True)

        def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
            return _closed(super().typed_dict_schema(schema), schema["cls"])

    return Generator


def _closed(made: dict[str, Any], cls: type, *, every: bool = False) -> dict[str, Any]:
    """Return the schema of a class with descriptions; `every` field is required, also one that has a default."""
    about = fields(cls)
    base = _of_dataclass(cls.__extends__) if hasattr(cls, "__extends__") else {"properties": {}, "required": []}
    properties = {
        name: {"description": about[name].doc, **prop} if name in about and about[name].doc else prop
        for name, prop in made["properties"].items()
    }
    required = list(properties) if every else [name for name in properties if name in made.get("required", ())]
    return {
        "type": "object",
        "description": doc(cls).split("\n\n")[0],
        "properties": {**base["properties"], **properties},
        "required": [*base["required"], *required],
        "additionalProperties": False,
    }


def _of_dataclass(cls: type) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls).json_schema(mode="serialization", schema_generator=_generator())


def _plain(node: Any, *, names: bool = False) -> Any:
    """Leave out what pydantic adds, some of it in some of its versions: titles, defaults, keywords that change nothing.

    Args:
        node: a schema, or a part of one.
        names: whether the keys of `node` are names of fields or definitions, not keywords.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {key: _plain(value) for key, value in node.items()}
    left_out = {"title", "default", *(["enum"] if "const" in node else [])}
    if node.get("additionalProperties") is True:
        left_out.add("additionalProperties")
    return {k: _plain(v, names=k in ("properties", "$defs")) for k, v in node.items() if k not in left_out}
