"""`cpu-pipeline stages`, `backends`, `tasks`, `schema`: what there is, from the docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cpu_pipeline.cli.json_outputs import CatalogEntry, OptionEntry

Only = Annotated[str | None, typer.Argument(help="One name, to see its options.")]


def list_stages(name: Only = None, as_json: Json = False) -> None:
    """List the stages a recipe can use, or one with its options."""
    from cpu_pipeline import stages

    names = stages.names() if name is None else [name]
    _show({n: stages.get(n) for n in names}, name is not None, as_json)


def list_tasks(name: Only = None, as_json: Json = False) -> None:
    """List the tasks, or one with its options."""
    from cpu_pipeline import tasks

    names = tasks.names() if name is None else [name]
    _show({n: tasks.get(n) for n in names}, name is not None, as_json)


def list_backends(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="RECIPE-OR-REPO", help="Say of each way whether it takes this model."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every way to run a model: stages, precisions, environment, upstream status, whether it works here."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns
    from cpu_pipeline.engine import support

    seen = None if model is None else support.model(model)
    found = []
    for way in support.backend_support():
        takes, why = (None, "") if seen is None else way.takes(seen)
        found.append((way, takes, why))
    if as_json:
        print_json(
            [{**vars(w), "works": not w.lacks, **({"takes": t, "because": y} if t else {})} for w, t, y in found]
        )
        return
    for way, takes, why in found:
        print(f"{way.format}: {way.about}")
        rows = [
            ("works here", f"no: lacks {', '.join(way.lacks)}" if way.lacks else "yes"),
            ("made by", ", ".join(way.stages) or "what a recipe starts from"),
            ("precisions", ", ".join(way.precisions)),
            ("architectures", f"{', '.join(way.architectures)}; others {way.others}"),
            ("tasks", ", ".join(way.tasks)),
            ("environment", way.environment),
            ("packages", _versions(way.packages)),
            ("upstream", way.status),
        ]
        if seen is not None:
            rows.insert(0, (f"takes {seen.kind}", f"{takes}{f': {why}' if why else ''}"))
        columns([("", *row) for row in rows])


def print_schema(
    write: Annotated[
        bool, typer.Option("--write", help="Write schema.json into this clone instead of printing.")
    ] = False,
) -> None:
    """Print the JSON Schema (draft-07) of recipes and pipelines, for editors and CI."""
    from cpu_pipeline.recipe import json_schema as made
    from cpu_pipeline.recipe import package_data

    if write:
        package_data.file("schema.json").write_text(made.text(), encoding="utf-8", newline="\n")
    else:
        typer.echo(made.text(), nl=False)


def options(model: type[BaseModel]) -> list[OptionEntry]:
    """List a class's options: name, type, default and docstring."""
    from cpu_pipeline.recipe import field_docs

    schema, lines = model.model_json_schema(), field_docs.fields(model)
    about = {field.alias or name: lines[name] for name, field in model.model_fields.items()}
    needed = set(schema.get("required", ()))
    found: list[OptionEntry] = []
    for key, prop in schema.get("properties", {}).items():
        default = "required" if key in needed else prop.get("default")
        found.append({"option": key, "type": _type(prop), "default": default, "about": about[key]})
    return found


def _type(prop: dict[str, Any]) -> str:
    if "enum" in prop:
        return " | ".join(map(str, prop["enum"]))
    if "anyOf" in prop:
        return " | ".join(_type(p) for p in prop["anyOf"])
    if "const" in prop:
        return str(prop["const"])
    kind = str(prop.get("type", "any"))
    if kind == "array" and isinstance(prop.get("items"), dict):
        return f"list of {_type(prop['items'])}"
    return kind


def _show(found: dict[str, type[BaseModel]], whole: bool, as_json: bool) -> None:
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns

    if as_json:
        entries: list[CatalogEntry] = [{"name": n, "about": _about(c), "options": options(c)} for n, c in found.items()]
        print_json(entries)
        return
    if not whole:
        columns([(name, _about(model)) for name, model in found.items()])
        return
    for name, model in found.items():
        print(f"{name}: {_about(model)}")
        for option in options(model):
            print(f"  {option['option']} ({option['type']}, default {option['default']})")
            print(f"      {' '.join(str(option['about']).split())}")


def _about(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").splitlines()[0]


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
