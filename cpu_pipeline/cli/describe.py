"""`cpu-pipeline stages`, `backends`, `tasks`, `schema`: what there is, from the docstrings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

Only = Annotated[str | None, typer.Argument(help="One name, to see its options.")]


def stages(name: Only = None, as_json: Json = False) -> None:
    """List the stages a recipe can use, or one with its options."""
    from cpu_pipeline import registry

    names = registry.stage_names() if name is None else [name]
    _show({n: registry.stage_class(n) for n in names}, name is not None, as_json)


def tasks(name: Only = None, as_json: Json = False) -> None:
    """List the tasks, or one with its options."""
    from cpu_pipeline import registry

    names = registry.task_names() if name is None else [name]
    _show({n: registry.task_class(n) for n in names}, name is not None, as_json)


def backends(as_json: Json = False) -> None:
    """List the backends: which format each runs, on which packages, and whether it works here."""
    from cpu_pipeline import keys, registry
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.cli.output import columns

    rows: list[dict[str, Any]] = []
    for name in registry.formats():
        module = registry.backend(name)
        versions = {package: keys.installed(package) for package in module.PACKAGES}
        about = (inspect.getdoc(module) or "").splitlines()[0]
        rows.append(
            {"format": name, "about": about, "packages": versions, "works": keys.ABSENT not in versions.values()}
        )
    if as_json:
        print_json(rows)
        return
    columns(
        [
            (r["format"], "works" if r["works"] else "missing", _versions(r["packages"]), r["about"])
            for r in rows
        ]
    )  # fmt: skip


def schema(
    write: Annotated[
        bool, typer.Option("--write", help="Write schema.json into this clone instead of printing.")
    ] = False,
) -> None:
    """Print the JSON Schema (draft-07) of recipes and pipelines, for editors and CI."""
    from cpu_pipeline import schema as made
    from cpu_pipeline import shipped

    if write:
        shipped.file("schema.json").write_text(made.text(), encoding="utf-8", newline="\n")
    else:
        typer.echo(made.text(), nl=False)


def docs(
    write: Annotated[bool, typer.Option("--write", help="Write the tables into README.md.")] = False,
    path: Annotated[Path, typer.Option(help="The README.")] = Path("README.md"),
) -> int:
    """Check that README's generated tables are up to date, or write them."""
    from cpu_pipeline.cli.tables import filled

    text = path.read_text(encoding="utf-8")
    made = filled(text)
    if write:
        path.write_text(made, encoding="utf-8", newline="\n")
    elif made != text:
        typer.echo(f"{path}: its tables are out of date; run `cpu-pipeline docs --write`", err=True)
        return 5
    return 0


def options(model: type[BaseModel]) -> list[dict[str, Any]]:
    """List a class's options: name, type, default and what its docstring says."""
    from cpu_pipeline import documented

    said, lines = model.model_json_schema(), documented.fields(model)
    about = {field.alias or name: lines[name] for name, field in model.model_fields.items()}
    needed = set(said.get("required", ()))
    found = []
    for key, prop in said.get("properties", {}).items():
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
        print_json([{"name": n, "about": _about(c), "options": options(c)} for n, c in found.items()])
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


def _versions(packages: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
