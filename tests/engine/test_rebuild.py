"""A cold build is compared with what is kept, step by step, and says what came out different."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml
from project import ROOT, ProjectFixture, pids_in, put_down

from cpu_pipeline import api
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import Stale
from cpu_pipeline.engine import environments, preview, rebuild
from cpu_pipeline.engine.rebuild import Compared, compare, require_repeated
from cpu_pipeline.engine.result import BuildResult

STEPS = (
    {"id": "one"},
    {"id": "two", "text": "two"},
    {"id": "gate", "use": "faulty.gate"},
    {"id": "speed", "use": "faulty.measure", "seconds": 0.1, "from": {"candidate": "two"}},
)


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    return ProjectFixture(tmp_path / "project")


def test_the_same_comes_out_and_nothing_is_left_or_put_out(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*STEPS)
    bench.built(recipe)
    before = len(bench.lines("began"))
    version = (bench.out / "small" / "latest").readlink()
    said = bench.run(recipe, "--rebuild", "--json").expect(0).json
    assert {one["step"]: one["verdict"] for one in said["steps"]} == dict.fromkeys(
        ("model:files", "model", "one", "two", "gate"), "identical"
    )
    # Built once more, cold; what is measured is left out.
    assert len(bench.lines("began")) == before + 2 and len(bench.lines("ended measure")) == 1
    assert (bench.out / "small" / "latest").readlink() == version
    assert bench.leftovers() == []


def test_what_else_runs_is_no_difference(bench: ProjectFixture) -> None:
    """Sums of floats follow the number of threads, so that it may not follow --jobs."""
    recipe = bench.recipe(STEPS[0])
    alone = bench.built(recipe).json["steps"]["one"]["facts"]
    beside = bench.built(recipe, "--jobs", "4", "--store", bench.home / "other").json["steps"]["one"]["facts"]
    assert alone["threads"] == beside["threads"] == host.cores()


def test_neither_locale_nor_place_is_a_difference(bench: ProjectFixture, tmp_path: Path) -> None:
    """A locale of ASCII alone, in which the name of this folder is no text."""
    there = ProjectFixture(tmp_path / "an öther place")
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}
    one, other = (
        place.run(place.recipe(*STEPS[:2]), "--json", **env).expect(0).json
        for place, env in ((bench, {}), (there, ascii_alone))
    )
    assert {name: (step["key"], step["digest"]) for name, step in one["steps"].items()} == {
        name: (step["key"], step["digest"]) for name, step in other["steps"].items()
    }
    assert Path(other["path"]).is_relative_to(there.home)


def test_what_is_left_out_of_the_comparison_promises_nothing() -> None:
    """What follows the whole machine, and that alone, says in the table why no two builds of it are alike."""
    nodes = api.plan(api.load_recipe(ROOT / "recipes" / "quickstart.yaml")).nodes.values()
    assert {node.use for node in nodes if node.stage.host() == "machine"} == {"validate.latency"}
    for node in nodes:
        assert (node.stage.host() == "machine") == bool(node.stage.reproducible)


def test_what_is_not_kept_is_built_twice(bench: ProjectFixture) -> None:
    assert "identical  two" in bench.run(bench.recipe(*STEPS[:2]), "--rebuild").expect(0).out
    assert len(bench.lines("began")) == 4
    assert not bench.out.exists()


def test_what_came_out_different_is_named(bench: ProjectFixture) -> None:
    """An option that is in no key, and changes the output all the same: what such a mistake looks like."""
    bench.built(bench.recipe(*STEPS[:2]))
    recipe = bench.recipe({**STEPS[0], "act": "fill"}, STEPS[1])
    said = bench.run(recipe, "--rebuild").expect(5, "2 of 4 steps came out different", "step `one`: large.bin")
    assert "different  one          large.bin" in said.out and "identical  model" in said.out
    assert bench.leftovers() == []


def test_the_lock_is_held_against_it_before_anything_is_built(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*STEPS[:2])
    bench.call("lock", recipe, "--store", bench.store).expect(0)
    assert "identical  two" in bench.run(recipe, "--rebuild", "--locked").expect(0).out
    before = bench.lines()
    place = recipe.with_suffix(".lock")
    held, text = yaml.safe_load(place.read_text()), place.read_text()
    place.write_text(text.replace(held["steps"]["two"]["output"], "f" * 64))
    bench.run(recipe, "--rebuild", "--locked").expect(5, "step `two` came out as ", f"the lock says {'f' * 12}")
    bench.recipe(STEPS[0], {**STEPS[1], "text": "new"})
    place.write_text(text)
    bench.run(recipe, "--rebuild", "--locked").expect(5, "is stale:", "steps.two.key: ")
    assert bench.lines() == before


def test_environments_are_made_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []
    monkeypatch.setattr(preview, "lacking", lambda *_: ["ipex"])
    monkeypatch.setattr(environments, "create", lambda name, _: made.append(name))
    monkeypatch.setattr(rebuild, "rebuild", lambda *_, **__: [Compared("one", "identical")])
    plan = api.plan(api.load_recipe(ROOT / "recipes" / "quickstart.yaml"))
    assert len(api.rebuild(plan, tmp_path, create_envs=True)) == 1 and made == ["ipex"]
    api.rebuild(plan, tmp_path)
    assert made == ["ipex"]


def test_a_killed_one_leaves_nothing_beside_the_store_and_what_is_in_it_is_swept(bench: ProjectFixture) -> None:
    bench.built(bench.recipe(STEPS[0]))
    told = bench.home / "pids.json"
    recipe = bench.recipe({**STEPS[0], "act": "hang", "to": told})
    beside = set(bench.home.iterdir())
    process = bench.start(*bench.run_arguments(recipe, "--rebuild"))
    with put_down(process):
        pids_in(told)
        process.send_signal(signal.SIGKILL)
        process.wait()
    told.unlink()
    assert set(bench.home.iterdir()) == beside
    assert any(path.parts[-1] == "CACHEDIR.TAG" for path in (bench.store / "work").rglob("*"))
    bench.built(recipe)
    assert bench.leftovers() == []


def test_names_and_order_of_a_graph_are_no_difference(tmp_path: Path) -> None:
    from engine.test_graph_digest import renamed, weighed, write_onnx

    graphs = [write_onnx(tmp_path / str(n), change) for n, change in enumerate((lambda _: None, renamed, weighed))]
    for graph in graphs:
        (graph.path / "config.json").write_text("{}")

    def built(graph: Artifact) -> BuildResult:
        made = BuildResult(plan=type("Plan", (), {"nodes": {"onnx": None}})())  # type: ignore[arg-type]  # names are enough
        made.artifacts["onnx"] = Artifact("onnx", graph.path, digest_tree(graph.path), {})
        return made

    [same] = compare(built(graphs[0]), built(graphs[1]))
    assert same.verdict == "same" and "model.onnx" in same.says
    [different] = compare(built(graphs[0]), built(graphs[2]))
    assert different == Compared("onnx", "different", "model.onnx")
    # The graph alone may be spelled otherwise, nothing beside it.
    (graphs[1].path / "config.json").write_text(json.dumps({"a": 1}))
    [beside] = compare(built(graphs[0]), built(graphs[1]))
    assert beside.verdict == "different" and "config.json" in beside.says
    require_repeated([same])
    with pytest.raises(Stale, match=r"1 of 2 steps came out different:\n  step `onnx`: model.onnx"):
        require_repeated([same, different])
