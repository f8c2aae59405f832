"""What a command holds while it builds, puts out and writes down: no `gc` comes between."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import ProjectFixture
from publishing import PretendedProject

from cpu_pipeline import api
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.engine import build
from cpu_pipeline.refresh import upstream
from cpu_pipeline.release import lockfile

COLLECTING = """\
import importlib, sys
from pathlib import Path
from cpu_pipeline.cli import main
from cpu_pipeline.release import references
from cpu_pipeline.store.gc import collect
from cpu_pipeline.store.local import Store
module, name = importlib.import_module(sys.argv[1]), sys.argv[2]
real = getattr(module, name)
def late(*given, **options):
    store = Store(Path("store"))
    collect(store, references.reader(store), 0)
    return real(*given, **options)
setattr(module, name, late)
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    return ProjectFixture(tmp_path / "project")


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("release.publish", "publish", ["run", "--out", "artifacts"]),
        ("release.lockfile", "make_lock", ["lock"]),
        ("release.lockfile", "write_lock", ["lock"]),
        ("engine.rebuild", "compare", ["run", "--rebuild"]),
    ],
)
def test_a_gc_between_building_and_what_comes_of_it(
    bench: ProjectFixture, module: str, name: str, arguments: list[str]
) -> None:
    recipe = bench.recipe({"id": "one"})
    command = [sys.executable, "-c", COLLECTING, f"cpu_pipeline.{module}", name, *arguments, recipe.name]
    done = subprocess.run(
        [*command, "--store", "store"], cwd=bench.home, env=bench.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert len(list(bench.store.glob("actions/*/*.json"))) == 3 and bench.verify().code == 0


def test_roots_are_registered_though_nothing_is_new(bench: ProjectFixture) -> None:
    """One that was killed after it wrote and before it registered is finished by the next."""
    recipe = bench.recipe({"id": "one"})
    bench.call("lock", recipe, "--store", bench.store).expect(0)
    bench.built(recipe)
    roots = sorted(path.read_text() for path in (bench.store / "roots").iterdir())
    assert roots == sorted([str(recipe.with_suffix(".lock")), str(bench.out / "small")])
    shutil.rmtree(bench.store / "roots")
    assert "unchanged" in bench.call("lock", recipe, "--store", bench.store).expect(0).out
    assert "unchanged" in bench.run(recipe).expect(0).out
    assert sorted(path.read_text() for path in (bench.store / "roots").iterdir()) == roots


def test_a_recipe_that_cannot_be_moved_any_more_leaves_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, store = PretendedProject(tmp_path).build(refresh={"follow": "main"})
    monkeypatch.setattr(build, "build", lambda *_, **__: built)
    monkeypatch.setattr(lockfile, "make_lock", lambda *_: {"lock": 1})
    path = built.plan.path
    move = upstream.Move(("model", "revision"), "model", "acme/small", "main", "a" * 40, "b" * 40)
    upgrade = api.Upgrade(api.load_recipe(path), (move,))
    text = path.read_text()
    path.write_text(text.replace("acme/small", "acme/large"))
    with pytest.raises(RecipeError, match="`main` of acme/small advanced, and this was changed meanwhile"):
        api.write_lock(built.plan, store, upgrade=upgrade)
    assert not path.with_suffix(".lock").exists() and "acme/large" in path.read_text()
    path.write_text(text)
    place, new = api.write_lock(built.plan, store, upgrade=upgrade)
    assert place.exists() and new
    assert json.loads(path.read_text())["model"]["revision"] == "b" * 40


@pytest.mark.parametrize("command", ["run", "lock", "refresh"])
@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_recipe_whose_path_is_not_utf_8_is_told(tmp_path: Path, command: str, where: str) -> None:
    bench = ProjectFixture(tmp_path / ("caf\udce9" if where == "folder" else "project"))
    recipe = bench.recipe({"id": "one", "runs": "runs.txt"})
    if where == "file":
        recipe = recipe.rename(recipe.with_stem("caf\udce9"))
    page = tmp_path / "summary.md"
    json_too = () if command == "lock" else ("--json",)
    said = bench.call(command, recipe.name, *json_too, "--store", tmp_path / "store", GITHUB_STEP_SUMMARY=str(page))
    said.expect(2, r"caf\udce9", "the path of a recipe has to be UTF-8; rename what is not")
    if json_too:
        assert json.loads(said.out)["exit_code"] == 2
    runs = bench.call("history", "--store", tmp_path / "store", "--json").expect(0).json["runs"]
    assert [one["exit_code"] for one in runs] == ([2] if command == "refresh" else [])
    assert page.exists() == (command == "refresh") and not bench.out.exists()
