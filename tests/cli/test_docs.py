"""`cpu-pipeline docs` writes the reference and finds what is out of date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from conftest import ROOT, Cli
from jsonschema import Draft7Validator

from cpu_pipeline import backends, stages, tasks
from cpu_pipeline.cli import _reference, app, docs
from cpu_pipeline.cli._reference import _markdown, commands, python
from cpu_pipeline.cli._reference._examples import EXAMPLES
from cpu_pipeline.core import errors
from cpu_pipeline.recipe import json_schema, spec
from cpu_pipeline.recipe.document import parse

PROGRAM = typer.main.get_command(app)

PAGES = ROOT / "docs" / "reference"
BLOCK = "before\n<!-- generated: reproducible -->\n{}<!-- end -->\nafter\n"


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_the_files_of_this_clone_are_up_to_date(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = cli("docs")
    assert result.code == 0, result.err


def test_files_are_written_where_they_are_missing_or_old(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schemas = tmp_path / "docs" / "reference" / "json"
    schemas.mkdir(parents=True)
    for name in ("reproducible.md", "gates.md"):
        block = BLOCK if name == "reproducible.md" else BLOCK.replace("reproducible", "rows_needed")
        (tmp_path / "docs" / name).write_text(block.format("old\n"), encoding="utf-8")
    (tmp_path / "docs" / "reference" / "cli.md").write_text("# Commands\n", encoding="utf-8")
    (schemas / "gone.json").write_text("{}", encoding="utf-8")
    result = cli("docs")
    expected = {str(path) for path in (*_reference.pages(PROGRAM), *docs.DOCUMENTS, "docs/reference/json/gone.json")}
    assert result.code == 5 and {line.partition(":")[0] for line in result.err.splitlines()} == expected
    assert cli("docs", "--write").code == 0 and cli("docs").code == 0
    assert not (schemas / "gone.json").exists()
    for path, text in _reference.pages(PROGRAM).items():
        assert path.read_text(encoding="utf-8") == text == (ROOT / path).read_text(encoding="utf-8")


def test_only_the_named_files_are_compared(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fresh, stale = tmp_path / "fresh.md", tmp_path / "stale.md"
    fresh.write_text("nothing generated\n", encoding="utf-8")
    stale.write_text(BLOCK.format("old\n"), encoding="utf-8")
    result = cli("docs", "--path", stale, "--path", fresh, "--path", "docs/reference/tasks.md")
    assert result.code == 5
    assert [Path(line.partition(":")[0]).name for line in result.err.splitlines()] == ["stale.md", "tasks.md"]
    assert cli("docs", "--write", "--path", stale).code == 0
    assert not (tmp_path / "docs").exists()
    assert cli("docs", "--path", stale).code == 0


def test_a_block_lists_every_stage_with_its_reason(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    path.write_text(BLOCK.format(""), encoding="utf-8")
    assert cli("docs", "--write", "--path", path).code == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n")
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}
    assert list(rows) == stages.names(internal=True)
    for name, row in rows.items():
        why = stages.get(name).reproducible
        assert row == f"| `{name}` | {'no' if why else 'yes'} | {why} |"


def test_every_name_has_its_section() -> None:
    headings = re.findall(r"^##+ (.*)$", "".join(page(n) for n in ("stages", "tasks", "backends", "cli")), re.MULTILINE)
    names = [f"`{name}`" for name in stages.names(internal=True)]
    names += [*tasks.names(), *backends.names(), *(f"cpu-pipeline {name}" for name in commands.visible(PROGRAM))]
    assert sorted(names) == sorted(set(headings) - {"Internal stages"})


def test_every_option_of_a_command_is_listed_with_its_help(cli: Cli) -> None:
    sections = dict(part.split("\n", 1) for part in page("cli").split("\n## cpu-pipeline "))
    for name, command in commands.visible(PROGRAM).items():
        options = {option for param in command.params if param.param_type_name == "option" for option in param.opts}
        assert set(re.findall(r"^\| `(--[\w-]+)", sections[name], re.MULTILINE)) == options, name
        assert all(f"--{option.lstrip('-')}" in cli(*name.split(), "--help").out for option in options)


def test_every_function_class_and_error_is_listed() -> None:
    text = page("python")
    for name in (*python.public_functions(), *(cls.__name__ for cls in python.public_classes())):
        assert f"\n### {name}\n" in text
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.PipelineError):
            assert f"| `{value.__name__}` | {value.exit_code} |" in text


@pytest.mark.parametrize("name", ["Recipe", "Use", "Target", "Refresh", "Pipeline", "Step"])
def test_every_key_has_an_example_that_fits(name: str) -> None:
    model = getattr(spec, name)
    assert EXAMPLES[name].keys() == {field.alias or key for key, field in model.model_fields.items()}
    definitions = json_schema.schema()["definitions"]
    properties = json_schema.model_schema(model)["properties"] | definitions.get(name, {}).get("properties", {})
    for key, text in EXAMPLES[name].items():
        value = parse(f"{key}: {text}", Path("example")).value[key]
        Draft7Validator({**properties[key], "definitions": definitions}).validate(value)


@pytest.mark.parametrize("source", ["hub", "folder", "file"])
def test_every_key_of_a_source_has_an_example_that_fits(source: str) -> None:
    definitions = json_schema.schema()["definitions"]
    for want in ("model", "tokenizer", "data"):
        for key, prop in definitions.get(f"{want}.{source}", {}).get("properties", {}).items():
            value = parse(f"{key}: {EXAMPLES[source][key]}", Path("example")).value[key]
            Draft7Validator({**prop, "definitions": definitions}).validate(value)


def test_text_cannot_end_a_cell_or_become_markup() -> None:
    assert _markdown.prose("a | b <c> *d*\n  `e|f`") == r"a \| b &lt;c&gt; \*d\* `e\|f`"
    assert _markdown.code("a|b`c") == r"`a\|b'c`"


def test_the_pages_are_the_same_elsewhere(tmp_path: Path) -> None:
    """Another home, locale, terminal and working directory, and a plug-in that is installed: nothing of it shows."""
    script = (
        "import typer.main\nfrom cpu_pipeline.cli import _reference, app\nPROGRAM = typer.main.get_command(app)\n"
        "for path, text in _reference.pages(PROGRAM).items(): print(path, text)"
    )
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "plugin"), str(ROOT)]), "HOME": str(tmp_path),
        "COLUMNS": "40", "TERM": "dumb", "LC_ALL": "C", "PYTHONUTF8": "1", "PYTHONHASHSEED": "7",
        "CPU_PIPELINE_STORE": str(tmp_path / "store"), "CPU_PIPELINE_STORE_REMOTE": "memory://x",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(f"{path} {text}\n" for path, text in _reference.pages(PROGRAM).items())
    assert "faulty" not in done.stdout and str(ROOT) not in done.stdout and str(Path.home()) not in done.stdout
