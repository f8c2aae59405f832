"""`plan` shows every step with its reason and writes nothing; `check` tells files that are right from others."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import ROOT, Cli
from project import ProjectFixture, write_model

EXAMPLES = ROOT / "tests" / "examples"
RECIPE = "model: {folder: model}\ntask: text-classification\nstages:\n  - {id: float, use: export.onnx}\n"


def test_plan_of_what_was_never_built(cli: Cli, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "toy.yaml").write_text(RECIPE)
    said = cli("plan", tmp_path / "toy.yaml", "--store", tmp_path / "store")
    assert said.code == 0 and said.err == ""
    assert said.out.splitlines() == [
        "build  model:files  fetch        <- outside      never built",
        "build  model        load.model   <- model:files  never built",
        "build  float        export.onnx  <- model        never built",
        "toy: 0 cached, 3 to build, 0 depending on others",
    ]
    assert not (tmp_path / "store").exists()


def test_plan_as_json(cli: Cli, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "toy.yaml").write_text(RECIPE)
    said = cli("plan", tmp_path / "toy.yaml", "--store", tmp_path / "store", "--json").json
    assert (said["recipe"], said["outputs"]) == ("toy", ["float"])
    assert said["steps"][2] == {
        "id": "float", "use": "export.onnx", "gives": "onnx", "from": {"model": "model"}, "data": {},
        "state": "build", "why": ["never built"],
    }  # fmt: skip


def test_plan_says_kept_build_and_depends(built: ProjectFixture) -> None:
    recipe = built.home / "small.yaml"
    before = sorted(p for p in built.store.rglob("*"))
    said = built.call("plan", recipe, "--store", built.store, "--json").json
    assert {step["state"] for step in said["steps"]} == {"cached"}
    other = built.call("plan", recipe, "--store", built.store, "--set", "one.text=other", "--json").json
    found = {step["id"]: (step["state"], step["why"]) for step in other["steps"]}
    assert found["one"] == ("build", ["options.text: same → other"])
    assert found["two"] == ("depends", ["on what `one` becomes"])
    assert found["model"] == ("cached", [])
    assert sorted(p for p in built.store.rglob("*")) == before


def test_check_as_json(cli: Cli) -> None:
    good, bad = EXAMPLES / "valid" / "chain.yaml", EXAMPLES / "invalid" / "unknown-key.yaml"
    said = cli("check", "--recipe-only", good, bad, "--json")
    assert said.code == 2 and said.err == ""
    first, second = said.json
    [warning] = first.pop("warnings")
    assert "100 rows (min_rows) cannot show that f1 falls by no more than 0.01" in warning
    assert first == {"file": str(good), "exit_code": 0, "says": [], "outside": [], "unread": []}
    assert second["exit_code"] == 2 and len(second["says"]) == 1


def test_check_tells_each_file(cli: Cli) -> None:
    good, refused = EXAMPLES / "valid" / "chain.yaml", EXAMPLES / "invalid" / "absolute-file.yaml"
    said = cli("check", "--recipe-only", EXAMPLES / "invalid" / "unknown-key.yaml", refused, good)
    assert said.code == 7
    first, second = said.out.splitlines()
    assert first == f"ok  {good}" and second.startswith("    warning  step `accuracy` (validate.accuracy): 100 rows")
    assert len(said.err.splitlines()) == 2


def test_errors_are_json_too(cli: Cli, tmp_path: Path) -> None:
    said = cli("plan", tmp_path / "none.yaml", "--json")
    assert said.code == 2
    assert json.loads(said.out) == {
        "error": "RecipeError", "exit_code": 2, "says": f"{tmp_path / 'none.yaml'}: no such file"
    }  # fmt: skip


def test_shipped_recipes_and_pipelines_are_right(cli: Cli) -> None:
    files = [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("pipelines/*.yaml"), *ROOT.glob("tests/suites/loopback/*.yaml")]
    said = cli("check", *files)
    assert said.err == "" and said.code == 0
    lines = [line for line in said.out.splitlines() if line.startswith("ok  ")]
    assert len(lines) == len(files) > 2
    shipped = cli("check", *ROOT.glob("recipes/*.yaml"))
    assert "warning" not in shipped.out, "their rows show what they ask for"
