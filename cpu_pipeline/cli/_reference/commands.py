"""docs/reference/cli.md: every command with its arguments and options, from the objects behind `--help`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cpu_pipeline.cli._reference._markdown import code, codes, doc, document, prose, table

INTRO = """Every command has `--help`. `cpu-pipeline --version` prints the version. Results go to stdout, progress and \
errors to stderr. See also: [Exit codes](exit-codes.md), [Environment variables](environment-variables.md), \
[JSON output](json.md)."""
PROGRAM = "cpu-pipeline"
TYPES = {str: "text", Path: "path", int: "integer", float: "number", bool: "flag"}
"""Type of a parameter -> words."""


def page(root: Any) -> str:
    """Return the page; `root` is click's command of the whole program."""
    from cpu_pipeline.cli._reference import schemas

    commands = visible(root)
    rows = [(f"[`{name}`](#{PROGRAM}-{name.replace(' ', '-')})", prose(_about(c)[0])) for name, c in commands.items()]
    lines = table(("command", "what it does"), rows)
    documented = schemas.outputs()
    for name, command in commands.items():
        lines += _section(name, command, json=name in documented)
    return document("Commands", INTRO, lines)


def visible(root: Any) -> Mapping[str, Any]:
    """Return every command that help shows, by the words after `cpu-pipeline`."""
    return dict(_walk(root, ()))


def takes_json(command: Any) -> bool:
    """Report whether a command has the option `--json`."""
    return any("--json" in param.opts for param in command.params)


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not (inner := getattr(command, "commands", None)):
        yield " ".join(words), command
        return
    for name, child in inner.items():
        if not child.hidden:
            yield from _walk(child, (*words, name))


def _section(name: str, command: Any, *, json: bool) -> list[str]:
    declared = _declared(command)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    usage = " ".join([PROGRAM, name, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)])
    return [
        f"## {PROGRAM} {name}", "",
        *(line for paragraph in _about(command) for line in (prose(paragraph), "")),
        "```text", usage, "```", "",
        *([f"Output with `--json`: [schema](json.md#{name.replace(' ', '-')}).", ""] if json else []),
        *table(("argument", "type", "required", "meaning"), [_argument(a, declared[a.name]) for a in arguments]),
        *table(("option", "value", "default", "meaning"), [_option(o, declared.get(o.name)) for o in options]),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Declared:
    """A parameter as the function behind a command declares it: typer's objects differ between its versions."""

    type: str
    least: float | None
    most: float | None


def _declared(command: Any) -> dict[str, _Declared]:
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    return {name: _read(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}


def _read(hint: Any) -> _Declared:
    kind, info = get_args(hint)[:2]
    inner = next(part for part in _parts(kind) if part is not type(None))
    return _Declared(TYPES[inner], info.min, info.max)


def _parts(kind: Any) -> Iterator[Any]:
    if arguments := get_args(kind):
        for argument in arguments:
            yield from _parts(argument)
    else:
        yield kind


def _about(command: Any) -> list[str]:
    """Return the paragraphs of a command's help."""
    return (command.help or doc(command.callback)).split("\n\n")


def _usage(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _argument(argument: Any, declared: _Declared) -> tuple[str, ...]:
    return code(_usage(argument)), declared.type, "yes" if argument.required else "no", prose(argument.help or "")


def _option(option: Any, declared: _Declared | None) -> tuple[str, ...]:
    meaning = prose(option.help or "")
    if option.envvar:
        meaning += f" Environment variable: {code(option.envvar)}."
    return codes([*option.opts, *option.secondary_opts]), _value(option, declared), _default(option), meaning


def _value(option: Any, declared: _Declared | None) -> str:
    if option.is_flag or declared is None:
        return ""
    bounds = [f"{sign} {bound}" for sign, bound in (("≥", declared.least), ("≤", declared.most)) if bound is not None]
    value = code(option.metavar) if option.metavar else " ".join([declared.type, *bounds])
    return f"{value}, repeatable" if option.multiple else value


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.default is None or callable(option.default) or option.default in ([], ()):
        return ""
    return code(option.default)
