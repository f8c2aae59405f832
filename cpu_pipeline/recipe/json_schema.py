"""The JSON Schema (draft-07) of recipes and pipelines, generated from the classes of stages, tasks and sources."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cpu_pipeline import sources, stages, tasks
from cpu_pipeline.recipe import field_docs, spec

COMMIT = "^[0-9a-f]{40}$"


def documented_classes() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name and class of every stage, task and source: the classes that have options in YAML."""
    yield from ((name, stages.get(name)) for name in stages.names(internal=True))
    yield from ((name, tasks.get(name)) for name in tasks.names())
    yield from ((name, sources.get(name)) for name in sources.names())


def schema() -> dict[str, Any]:
    """Build the whole schema: one `if/then` per stage, task and source, so that errors name the right branch."""
    definitions: dict[str, Any] = {}
    for name in stages.names():
        definitions[f"stage.{name}"] = _model(stages.get(name), definitions)
    for name in tasks.names():
        definitions[f"task.{name}"] = _model(tasks.get(name), definitions)
    for want in ("model", "tokenizer", "data"):
        for name in sources.names(want):
            definitions[f"{want}.{name}"] = _source(want, name, definitions)
        definitions[want] = _choice(want)
    definitions["Step"] = _step(definitions)
    definitions["Use"] = _task()
    definitions["Pipeline"] = _recipe_file(spec.Pipeline, definitions)
    definitions["Recipe"] = _recipe(definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cpu-pipeline",
        "description": "A recipe (what is wanted) or a pipeline (how it is made).",
        "type": "object",
        "if": {"anyOf": [{"required": [key]} for key in ("model", "task", "data", "pipeline")]},
        "then": {"$ref": "#/definitions/Recipe"},
        "else": {"$ref": "#/definitions/Pipeline"},
        "definitions": dict(sorted(definitions.items())),
    }


def text() -> str:
    """Return the text of schema.json."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def model_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the definition of one class with its field docs, for documentation."""
    return _model(model, {})


def _model(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Turn a pydantic class into a draft-07 definition; nested classes go into `definitions`."""
    definition = model.model_json_schema(ref_template="#/definitions/{model}")
    known = {**vars(spec), **vars(sys.modules[model.__module__])}  # a nested class is a name where it is used
    for name, nested in definition.pop("$defs", {}).items():
        definitions.setdefault(name, _documented(_draft7(nested), known[name]))
    definition = _documented(dict(_draft7(definition)), model)
    definition.pop("title", None)
    definition["additionalProperties"] = False
    return definition


def _documented(definition: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Add the docstring under each field to its property, as the first key."""
    docs = field_docs.fields(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        definition["properties"][key] = {"description": docs[name], **definition["properties"][key]}
    return definition


def _draft7(node: Any) -> Any:
    """Drop pydantic's titles; write tuples and nullable values as draft-07 does."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    definition = {k: _draft7(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    if "prefixItems" in definition:
        definition["items"] = definition.pop("prefixItems")
    branches = definition.get("anyOf")
    if isinstance(branches, list) and {"type": "null"} in branches and len(branches) == 2:
        [other] = [b for b in branches if b != {"type": "null"}]
        if isinstance(other.get("type"), str):
            definition.pop("anyOf")
            definition = {**other, **definition, "type": [other["type"], "null"]}
            if "enum" in definition:
                definition["enum"] = [*definition["enum"], None]
    return definition


def _recipe_file(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    definition = _model(model, definitions)
    definitions.pop("Step", None)
    definition["properties"]["stages"] = {
        "type": "array", "minItems": 1, "items": {"$ref": "#/definitions/Step"},
        "description": definition["properties"]["stages"]["description"],
    }  # fmt: skip
    definitions["Step"] = _step(definitions)
    return definition


def _recipe(definitions: dict[str, Any]) -> dict[str, Any]:
    definition = _recipe_file(spec.Recipe, definitions)
    definitions["Use"] = _task()
    docs = {key: value.get("description") for key, value in definition["properties"].items()}
    for key, want in (("model", "model"), ("teacher", "model"), ("tokenizer", "tokenizer")):
        definition["properties"][key] = {"description": docs[key], "allOf": [{"$ref": f"#/definitions/{want}"}]}
    definition["properties"]["task"] = {"description": docs["task"], "allOf": [{"$ref": "#/definitions/Use"}]}
    definition["properties"]["data"] = {
        "type": "object", "description": docs["data"], "additionalProperties": False,
        "properties": {role: {"$ref": "#/definitions/data"} for role in spec.ROLES},
    }  # fmt: skip
    definition["anyOf"] = [{"required": ["pipeline"]}, {"required": ["stages"]}]
    definition["not"] = {"required": ["pipeline", "stages"]}
    return definition


def _step(definitions: dict[str, Any]) -> dict[str, Any]:
    definition = _model(spec.Step, definitions)
    names = stages.names()
    definition["properties"]["use"] |= {"enum": names}
    definition["properties"]["with"] = {
        "type": "object",
        "description": definition["properties"]["with"]["description"],
    }
    definition["allOf"] = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": {"properties": {"with": {"$ref": f"#/definitions/stage.{name}"}}},
        }
        for name in names
    ]
    return definition


def _task() -> dict[str, Any]:
    names = [*tasks.names(), *sorted(tasks.ALIASES)]
    branches = [
        {
            "if": {"properties": {"use": {"enum": _called(name)}}, "required": ["use"]},
            "then": {"properties": {"with": {"$ref": f"#/definitions/task.{name}"}}},
        }
        for name in tasks.names()
    ]
    full = {
        "type": "object", "required": ["use"], "additionalProperties": False, "allOf": branches,
        "properties": {"use": {"enum": names, "description": "Task."},
                       "with": {"type": "object", "description": "Options of that task."}},
    }  # fmt: skip
    return {"if": {"type": "string"}, "then": {"enum": names}, "else": full}


def _called(task: str) -> list[str]:
    """List the names of a task, its own first."""
    return [task, *sorted(alias for alias, name in tasks.ALIASES.items() if name == task)]


def _choice(want: str) -> dict[str, Any]:
    """Describe `model:`, `tokenizer:` or one role of `data:`: its key names the source."""
    names = sources.names(want)
    return {
        "type": "object",
        "anyOf": [{"required": [name]} for name in names],
        "allOf": [{"if": {"required": [n]}, "then": {"$ref": f"#/definitions/{want}.{n}"}} for n in names],
    }


def _source(want: str, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    definition = _model(sources.get(name), definitions)
    if want == "data":
        rows = _model(stages.get("load.rows"), definitions)["properties"]
        definition["properties"] |= {
            key: rows[key] for key in ("split", "take", "without", "seed", "columns", "config")
        }
        definition["properties"].pop("format", None)
    else:
        definition["properties"].pop("split", None)
        definition["properties"].pop("config", None)
        if want == "tokenizer":
            definition["properties"].pop("format", None)
    return definition
