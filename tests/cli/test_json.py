"""What commands print with `--json` is as docs/reference/json describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer.main
from cli.conftest import STEPS
from conftest import ROOT, Cli
from jsonschema import Draft202012Validator
from project import ProjectFixture

from cpu_pipeline.cli import app
from cpu_pipeline.cli._reference import commands, schemas

PROGRAM = typer.main.get_command(app)

SCHEMAS = ROOT / "docs" / "reference" / "json"
TEXT = {"id": "a", "text": "good", "label": 1}


class Calls:
    """One project that was built twice, and the ways to call a command on it."""

    def __init__(self, cli: Cli, project: ProjectFixture, folder: Path) -> None:
        self.cli, self.project, self.folder = cli, project, folder
        self.recipe = project.home / "small.yaml"
        self.store, self.out = ("--store", project.store), ("--out", project.out)

    def here(self, *arguments: object, code: int = 0) -> str:
        """Run a command that needs no plug-in in this process."""
        result = self.cli(*arguments, "--json")
        assert result.code == code, result.err
        return result.out

    def call(self, *arguments: object, code: int = 0) -> str:
        """Run a command as a process of its own."""
        return self.project.call(*arguments, "--json").expect(code).out

    def versions(self) -> list[Path]:
        """Build another version; return both."""
        first = (self.project.out / "small" / "latest").resolve()
        self.project.built(self.project.recipe({"id": "one"}, {"id": "two", "text": "other"}))
        return [first, (self.project.out / "small" / "latest").resolve()]


def run_several(calls: Calls) -> str:
    other = calls.project.recipe({"id": "one", "text": "broken", "act": "raise"}, name="broken")
    return calls.call("run", other, calls.recipe, "--keep-going", *calls.store, *calls.out, code=6)


def check(calls: Calls) -> str:
    wrong = calls.folder / "wrong.yaml"
    wrong.write_text("model: {folder: nowhere}\n", encoding="utf-8")
    return calls.here("check", ROOT / "recipes" / "quickstart.yaml", wrong, code=2)


def score(calls: Calls) -> str:
    references, predictions = calls.folder / "references.jsonl", calls.folder / "predictions.jsonl"
    references.write_text(json.dumps(TEXT), encoding="utf-8")
    predictions.write_text(json.dumps({"id": "a", "label": 1}), encoding="utf-8")
    return calls.here("score", "text-classification", "--references", references, "--predictions", predictions)


def rollback(calls: Calls) -> str:
    calls.versions()
    return calls.here("rollback", "small", *calls.out, *calls.store)


def history_of_one(calls: Calls) -> str:
    rollback(calls)
    printed = calls.here("history", "small", *calls.out, *calls.store)
    assert {entry["state"] for entry in json.loads(printed)["versions"]} == {"in service", "rolled back"}
    return printed


def damaged(calls: Calls) -> str:
    [marker] = [p for p in calls.project.store.glob("objects/*/*/marker.txt") if p.read_text() == "two\n"]
    marker.parent.chmod(0o755)
    marker.chmod(0o644)
    marker.write_text("twp\n", encoding="utf-8")
    return calls.here("store", "verify", *calls.store, code=7)


def pull(calls: Calls) -> str:
    remote = calls.folder / "remote"
    calls.call("store", "push", remote, *calls.store)
    return calls.call("store", "pull", remote, "--store", calls.folder / "empty", "--recipe", calls.recipe)


def sensitivity(calls: Calls) -> str:
    """Print what a build of real models would have measured."""
    from cpu_pipeline.release.sensitivity import SensitiveOperator, SensitivityTable

    worst = SensitiveOperator("layer.0/MatMul", "MatMul", 64, 0.5, 0.875, 0.25)
    other = SensitiveOperator("layer.1/MatMul", "MatMul", 0, None, None, None)
    found = SensitivityTable(
        "small", "int8", "quantize.onnx", "KL divergence", 48, "f1", "higher", "selection", 100, 0.9, 0.625,
        [worst, other],
    )  # fmt: skip
    with mock.patch("cpu_pipeline.api.sensitivity", return_value=(found, calls.folder)):
        return calls.here("sensitivity", ROOT / "recipes" / "quickstart.yaml", "onnx-int8")


def bisect(calls: Calls) -> str:
    """Print what a build of real models would have measured."""
    from cpu_pipeline.release.bisect import BisectedStep, Bisection

    step = BisectedStep("int8", "quantize.onnx", "onnx", 0.5, 0.75, -0.25, -0.5, None, None, None, None, 1, 4, "lost")
    found = Bisection("small", "f1", "higher", "validation", 100, 0.95, [step], "int8")
    with mock.patch("cpu_pipeline.api.bisect", return_value=(found, calls.folder)):
        return calls.here("bisect", ROOT / "recipes" / "quickstart.yaml")


def flips(calls: Calls) -> str:
    """Print rows as a build of real models would have kept them."""
    from cpu_pipeline.release.flips import Flip

    found = [Flip("lost", "gate", "a", "f1", 1.0, 0.5, {"label": 1}, {"label": 0}, TEXT)]
    with mock.patch("cpu_pipeline.release.flips.read", return_value=found):
        return calls.here("flips", calls.project.out / "small" / "latest", *calls.store)


SMALL = ("--layers", 1, "--hidden", 32, "--heads", 2, "--batch", 2, "--length", 8, "--rounds", 1, "--threads", 1)
CASES: list[tuple[str, Callable[[Calls], str]]] = [
    ("run", lambda c: c.call("run", c.recipe, *c.store, *c.out)),
    ("run", lambda c: c.call("run", c.recipe, "--until", "one", *c.store, *c.out)),
    ("run", run_several),
    ("run --rebuild", lambda c: c.call("run", c.recipe, "--rebuild", *c.store)),
    ("error", lambda c: c.here("plan", c.folder / "none.yaml", code=2)),
    ("plan", lambda c: c.call("plan", c.recipe, *c.store)),
    ("plan", lambda c: c.call("plan", c.recipe, "--store", c.folder / "empty")),
    ("refresh", lambda c: c.call("refresh", c.recipe, *c.store, *c.out)),
    ("refresh", lambda c: c.call("refresh", c.folder / "none.yaml", *c.store, *c.out, code=2)),
    ("check", check),
    ("score", score),
    ("verify", lambda c: c.here("verify", c.project.out / "small" / "latest")),
    ("bisect", bisect),
    ("flips", flips),
    ("sensitivity", sensitivity),
    ("diff", lambda c: c.here("diff", *c.versions(), *c.store)),
    ("history", lambda c: c.here("history", *c.store, *c.out)),
    ("history", history_of_one),
    ("status", lambda c: c.call("status", c.recipe, *c.store, *c.out)),
    ("rollback", rollback),
    ("stages", lambda c: c.here("stages")),
    ("tasks", lambda c: c.here("tasks")),
    ("pipelines", lambda c: c.here("pipelines")),
    ("backends", lambda c: c.here("backends")),
    ("backends", lambda c: c.here("backends", "--model", ROOT / "recipes" / "quickstart.yaml")),
    ("doctor", lambda c: c.here("doctor", *c.store)),
    ("bench padding", lambda c: c.here("bench", "padding", *SMALL, "--shares", "100")),
    ("store list", lambda c: c.here("store", "list", *c.store)),
    ("store stat", lambda c: c.here("store", "stat", *c.store)),
    ("store verify", damaged),
    ("store gc", lambda c: c.here("store", "gc", "--keep-days", 0, "--dry-run", *c.store)),
    ("store push", lambda c: c.call("store", "push", c.folder / "remote", *c.store)),
    ("store pull", pull),
    ("env list", lambda c: c.here("env", "list")),
    ("env check", lambda c: c.here("env", "check", "ipex", code=4)),
]


@pytest.fixture
def calls(cli: Cli, built: ProjectFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setenv("CPU_PIPELINE_ENVIRONMENTS", str(tmp_path / "environments"))
    built.recipe(*STEPS)
    return Calls(cli, built, tmp_path)


@pytest.mark.parametrize(("output", "printed"), CASES, ids=[f"{n}-{name}" for n, (name, _) in enumerate(CASES)])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_output_fits_its_schema(output: str, printed: Callable[[Calls], str], calls: Calls) -> None:
    schema = json.loads((SCHEMAS / f"{schemas.file_name(output)}.json").read_text(encoding="utf-8"))
    value = json.loads(printed(calls))
    Draft202012Validator(schema).validate(value)
    assert value, "nothing was printed that could be wrong"


ELSEWHERE = {"bisect", "flips"}
"""Commands whose output tests/release compares with the schema: they need models that answer."""


def test_every_command_with_json_has_a_schema_and_a_case() -> None:
    from cpu_pipeline.cli.json_outputs import OTHERS, OUTPUTS

    found = {name for name, command in commands.visible(PROGRAM).items() if commands.takes_json(command)}
    assert found == set(OUTPUTS)
    assert {name for name, _ in CASES} | ELSEWHERE == {*OUTPUTS, *OTHERS}


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a schema that lists properties."""
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


@pytest.mark.parametrize("output", schemas.outputs())
def test_a_schema_is_closed_and_every_field_is_described(output: str) -> None:
    schema = schemas.schema(output)
    Draft202012Validator.check_schema(schema)
    found = list(objects(schema))
    assert found
    for node in found:
        assert node["additionalProperties"] is False and node["description"]
        assert [name for name, field in node["properties"].items() if not field.get("description")] == []


def test_a_field_that_is_missing_or_unknown_is_found() -> None:
    validator = Draft202012Validator(schemas.schema("rollback"))
    value = {"name": "small", "from": None, "to": "1"}
    assert validator.is_valid(value)
    assert not validator.is_valid({**value, "more": 1}) and not validator.is_valid({"name": "small", "to": "1"})
