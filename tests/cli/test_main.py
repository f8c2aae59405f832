"""The command itself: version, help, completion, wrong usage; and every command is documented."""

from __future__ import annotations

import errno
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT, Cli
from typer.main import get_command

from cpu_pipeline import cli as package
from cpu_pipeline.cli import output


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        elif not command.hidden:
            yield f"{before}{name}", command


COMMANDS = dict(commands(get_command(package.app)))
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def documented() -> set[str]:
    """Name the commands that README and docs tell of: `cpu-pipeline store list` · `stat` are two of one group."""
    found = set()
    for line in "\n".join(path.read_text(encoding="utf-8") for path in TEXTS).splitlines():
        first, *others = re.findall(r"`([^`]+)`", line) or [""]
        if match := re.match(r"cpu-pipeline ((?:[a-z]+ )*)([a-z]+)\b", first):
            found |= {match[1] + word for word in (match[2], *(other.split()[0] for other in others))}
    return found


def test_version(cli: Cli) -> None:
    said = cli("--version")
    assert said.code == 0
    try:
        assert said.out == f"cpu-pipeline {importlib.metadata.version('cpu-pipeline')}\n"
    except importlib.metadata.PackageNotFoundError:
        assert said.out == "cpu-pipeline, not installed: run from its source\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_and_its_options(name: str, cli: Cli) -> None:
    said = cli(*name.split(), "--help")
    assert said.code == 0
    about = (COMMANDS[name].help or "").strip()
    assert about and about[0].isupper() and about.endswith(".")
    for parameter in COMMANDS[name].params:
        assert parameter.name == "help" or parameter.help, f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented(name: str) -> None:
    assert name in documented(), f"say in README.md or docs/ what `cpu-pipeline {name}` does"


def test_the_commands_that_must_be_there() -> None:
    wanted = [
        "run",
        "plan",
        "check",
        "init",
        "pin",
        "score",
        "verify",
        "stages",
        "backends",
        "tasks",
        "schema",
        "doctor",
    ]
    assert {*wanted, "store list", "store stat", "store verify", "store gc"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument"),
        (["plan", "a", "b"], "unexpected extra argument"),
        (["run", "a", "--jobs", "0"], "--jobs"),
        (["run", "a", "--job", "1"], "No such option"),
        (["store", "gc", "--keep-days", "-1"], "--keep-days"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], says: str, cli: Cli) -> None:
    said = cli(*arguments)
    assert said.code == 2 and said.out == ""
    assert says in said.err and "Traceback" not in said.err


def test_no_command_shows_help(cli: Cli) -> None:
    said = cli()
    assert "Usage: cpu-pipeline" in said.out + said.err


def test_completion_shows_something(command: Cli) -> None:
    said = command("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert said.code == 0 and "cpu-pipeline" in said.out and "_COMPLETE" in said.out


def test_completion_knows_the_commands(command: Cli) -> None:
    env = {"_CPU_PIPELINE_COMPLETE": "complete_bash", "COMP_WORDS": "cpu-pipeline st", "COMP_CWORD": "1"}
    assert command(env=env).out.split() == ["status", "stages", "store"]


def test_what_we_did_not_foresee_is_a_bug_of_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from cpu_pipeline import stages

    def broken(_: bool = False) -> list[str]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(stages, "names", broken)
    said = cli("stages")
    assert said.code == 70
    assert "Traceback" in said.err and "this is a bug of cpu-pipeline" in said.err


def test_missing_package_is_named_with_the_way_to_get_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The core alone has no huggingface_hub; `pin` says so, and it is not a bug."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    ended = cli("pin", "owner/name")
    assert ended.code == 4
    assert "huggingface_hub is not installed" in ended.err and "cpu-pipeline[build]" in ended.err


@pytest.mark.parametrize("name", ["r" * 260 + ".yaml", "r" * 300 + "/recipe.yaml"])
def test_a_name_that_the_system_does_not_take_is_told(cli: Cli, name: str) -> None:
    said = cli("check", name)
    assert said.code == 2 and "File name too long" in said.err and "Traceback" not in said.err


@pytest.mark.skipif(sys.platform != "linux", reason="files are limited otherwise")
def test_too_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(package, "app", exhausted)
    said = cli("plan", "x.yaml")
    assert said.code == 75 and "ulimit -n" in said.err


def test_marks_of_order_are_escaped() -> None:
    assert output.plain("a\u202eb\u2066c\x1b[31md") == r"a\u202eb\u2066cd"
