"""`cpu-pipeline pipelines`, `tasks`, `stages`, `backends`, `schema`: what there is, from the docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpu_pipeline.cli.options import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cpu_pipeline.cli.json_outputs import CatalogEntry, OptionEntry, PipelineEntry, TaskEntry
    from cpu_pipeline.engine.support import BackendSupport, Model
    from cpu_pipeline.tasks._base import Task

Only = Annotated[str | None, typer.Argument(help="One name, to see its options.")]


def list_pipelines(
    name: Annotated[str | None, typer.Argument(help="One name, to see its steps with their options.")] = None,
    as_json: Json = False,
) -> None:
    """List the pipelines a recipe can name, with the data that each needs and its stages; or one with its steps."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.recipe import pipelines

    known = pipelines.find(Path("recipes"))
    chosen = known if name is None else [pipelines.one(known, name)]
    if as_json:
        entries: list[PipelineEntry] = [
            {"name": p.name, "about": p.about, "needs": list(p.needs),
             "steps": [{"id": step.id, "use": step.use, "options": step.options} for step in p.steps]}
            for p in chosen
        ]  # fmt: skip
        print_json(entries)
        return
    for pipeline in chosen:
        print(f"{pipeline.name}: {pipeline.about}")
        print(f"  needs   {', '.join(pipeline.needs) or 'a model alone'}")
        if name is None:
            print(f"  stages  {_stages([step.use for step in pipeline.steps])}")
        else:
            for step in pipeline.steps:
                print(f"  {step.id}: {step.use}{_options(step.options)}")


def _stages(uses: Sequence[str]) -> str:
    """Name the stages of a pipeline, each once, with the number of its steps."""
    counts = {use: uses.count(use) for use in uses}
    return ", ".join(f"{use} ({count} times)" if count > 1 else use for use, count in counts.items())


def _options(options: Mapping[str, Any]) -> str:
    return "".join(f" {key}={value}" for key, value in options.items())


def list_stages(name: Only = None, as_json: Json = False) -> None:
    """List the stages a recipe can use, or one with its options."""
    from cpu_pipeline import stages

    names = stages.names() if name is None else [name]
    _show({n: stages.get(n) for n in names}, name is not None, as_json)


def list_tasks(
    name: Annotated[str | None, typer.Argument(help="One name, to see its columns, metrics and options.")] = None,
    as_json: Json = False,
) -> None:
    """List the tasks, or one with the columns of its rows, its metrics and its options."""
    from cpu_pipeline import tasks
    from cpu_pipeline.cli.output import as_json as print_json

    names = tasks.names() if name is None else [tasks.canonical(name)]
    found = {n: tasks.get(n) for n in names}
    if as_json:
        print_json([_task_entry(n, task) for n, task in found.items()])
    elif name is None:
        _show(found, False, as_json)
    else:
        _show_task(*found.popitem())


def _task_entry(name: str, task: type[Task]) -> TaskEntry:
    return {
        "name": name, "about": _about(task), "aliases": _aliases(name), "columns": dict(task.columns),
        "metrics": {metric: _direction(task, metric) for metric in _metrics(task)}, "options": options(task),
    }  # fmt: skip


def _show_task(name: str, task: type[Task]) -> None:
    from cpu_pipeline.cli.output import columns

    print(f"{name}: {_about(task)}")
    if aliases := _aliases(name):
        print(f"also called: {', '.join(aliases)}")
    print("columns")
    rows = [(column, "needed" if needed else _optional(task, column)) for column, needed in task.columns.items()]
    columns([("", *row) for row in rows])
    first, *others = _metrics(task)
    print("metrics")
    directions = [(first, f"{_direction(task, first)} is better; what gates judge unless told")]
    columns([("", *row) for row in (*directions, *((m, f"{_direction(task, m)} is better") for m in others))])
    print("options")
    _print_options(task)


def _optional(task: type[Task], column: str) -> str:
    return "the right answer; needed by validate.accuracy" if column == task.gold else "may be left out"


def _aliases(name: str) -> list[str]:
    from cpu_pipeline import tasks

    return sorted(alias for alias, task in tasks.ALIASES.items() if task == name)


def _metrics(task: type[Task]) -> Sequence[str]:
    return task.metrics


def _direction(task: type[Task], metric: str) -> str:
    return "lower" if metric in getattr(task, "lower_is_better", ()) else "higher"


def list_backends(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="RECIPE-OR-MODEL",
            help="Say of each way whether it takes the model of this recipe, folder or repository.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every way to run a model: stages, precisions, environment, upstream status, whether it works here."""
    from cpu_pipeline.cli.output import as_json as print_json
    from cpu_pipeline.engine import support

    seen = None if model is None else support.model(model)
    ways = support.backend_support()
    if as_json:
        print_json([{**vars(way), "works": not way.lacks, **_verdict(way, seen)} for way in ways])
    elif seen is None:
        for way in ways:
            _show_backend(way)
    else:
        _show_taking(ways, seen)


def _verdict(way: BackendSupport, model: Model | None) -> dict[str, str]:
    if model is None:
        return {}
    takes, why = way.takes(model)
    return {"takes": takes, "because": why}


def _show_backend(way: BackendSupport) -> None:
    from cpu_pipeline.cli.output import columns

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
    columns([("", *row) for row in rows])


def _show_taking(ways: Sequence[BackendSupport], model: Model) -> None:
    """Print one line for each way, and the reasons below."""
    from cpu_pipeline.cli.output import columns

    rows = [("format", model.kind, "works", "precisions", "made by")]
    notes = list[str]()
    for way in ways:
        takes, why = way.takes(model)
        works = "no" if way.lacks else "yes"
        made = ", ".join([*way.stages[:1], *([f"+{len(way.stages) - 1}"] if way.stages[1:] else [])]) or "-"
        rows.append((way.format, takes, works, ", ".join(way.precisions), made))
        notes += [f"{way.format}: {why}"] if why else []
        notes += [f"{way.format}: lacks {', '.join(way.lacks)}"] if way.lacks else []
    columns(rows)
    print("\n".join(["", *notes] if notes else []))


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


def _show(found: Mapping[str, type[BaseModel]], whole: bool, as_json: bool) -> None:
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
        _print_options(model)


def _print_options(model: type[BaseModel]) -> None:
    for line in _option_lines(options(model)):
        print(line)


def _option_lines(entries: Sequence[OptionEntry]) -> Iterator[str]:
    for option in entries:
        yield f"  {option['option']} ({option['type']}, default {option['default']})"
        yield f"      {' '.join(str(option['about']).split())}"


def _about(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").splitlines()[0]


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
