"""F14, F15, and what a build does when an option, a threshold, a version, a clock or an input changes."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, CommandResult, ProjectFixture

from cpu_pipeline.release import latest, promotions

HOOKS = ROOT / "tests" / "suites" / "faults" / "hooks"
CHAIN = ({"id": "one"}, {"id": "two", "text": "two"}, {"id": "gate", "use": "faulty.gate"})


def planned(bench: ProjectFixture, recipe: Path, *more: object, **env: str) -> dict[str, dict[str, Any]]:
    said = bench.call("plan", recipe, "--store", bench.store, "--json", *more, **env).expect(0)
    return {step["id"]: step for step in said.json["steps"]}


def hooked(bench: ProjectFixture, name: str, **more: str) -> dict[str, str]:
    """Return the environment in which a hook (see hooks/sitecustomize.py) is at work."""
    path = os.pathsep.join([str(HOOKS), bench.environment()["PYTHONPATH"]])
    return {"PYTHONPATH": path, "FAULT_HOOK": name, **more}


def test_clock_jumps_back(bench: ProjectFixture) -> None:
    """F14: built today, asked for ten years ago by a clock that runs backwards: all hits; and the other way round."""
    recipe = bench.recipe(*CHAIN)
    made = bench.built(recipe)
    past = hooked(bench, "clock")
    again = bench.built(recipe, **past)
    assert again.json["built"] == []
    assert again.digests == made.digests
    other = ProjectFixture(bench.home.parent / "past")
    old = other.built(other.recipe(*CHAIN), **past)
    assert old.digests == made.digests
    assert {n: s["key"] for n, s in old.json["steps"].items()} == {n: s["key"] for n, s in made.json["steps"].items()}
    assert other.built(other.recipe(*CHAIN)).json["built"] == []
    records = [json.loads(path.read_text()) for path in (other.store / "actions").rglob("*.json")]
    assert all(record["run"]["when"] < time.time() - 300_000_000 for record in records), "the hook did nothing"


def test_times_from_the_future(bench: ProjectFixture) -> None:
    """F14: files of tomorrow change no key and no hit, and gc keeps them."""
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    shutil.rmtree(bench.out)  # what is published stays whatever the time
    tomorrow = time.time() + 1_000_000
    for path in [*bench.store.rglob("*"), *(bench.home / "model").iterdir()]:
        os.utime(path, (tomorrow, tomorrow))
    bench.call("store", "gc", "--keep-days", "0", "--store", bench.store, **hooked(bench, "clock")).expect(0)
    assert bench.built(recipe).json["built"] == []


def test_promotions_keep_their_order_when_the_clock_jumps_back(bench: ProjectFixture) -> None:
    """What came later is later, though its time says otherwise: `rollback` goes to the version before."""
    bench.built(bench.recipe({"id": "one"}))
    first = latest.latest(bench.out / "small")
    bench.built(bench.recipe({"id": "one", "text": "two"}), **hooked(bench, "clock"))
    second = latest.latest(bench.out / "small")
    moves = promotions.promoted(bench.out / "small")
    assert [move.version for move in moves] == [first, second] and moves[1].when < moves[0].when, "the hook did nothing"
    to = ["--store", bench.store, "--out", bench.out]
    bench.call("history", "small", *to).expect(0)
    bench.call("rollback", "small", *to).expect(0)
    assert latest.latest(bench.out / "small") == first != second
    assert promotions.rejected(bench.out / "small") == {second}


@pytest.mark.parametrize("back", [False, True], ids=["for good", "and back"])
def test_input_changes_while_it_is_read(bench: ProjectFixture, tmp_path: Path, back: bool) -> None:
    """F15: at each opening of a file, by the command or the fetching child, it is another one (until the next)."""
    first, other = tmp_path / "first", tmp_path / "other"
    file, count = bench.home / "model" / "model.safetensors", tmp_path / "count"
    first.write_bytes(file.read_bytes())
    other.write_bytes(first.read_bytes()[:-1] + b"\x00")
    recipe = bench.recipe({"id": "one"})
    told = {"FAULT_FILE": file, "FAULT_COUNT": count, "FAULT_WITH": other, "FAULT_BACK": first if back else ""}
    outcomes: list[int] = []
    for at in range(1, 12):
        for path in (bench.store, bench.out):
            shutil.rmtree(path, ignore_errors=True)
        count.unlink(missing_ok=True)
        file.write_bytes(first.read_bytes())
        hook = hooked(bench, "change", FAULT_AT=str(at), **{name: str(value) for name, value in told.items()})
        said = bench.run(recipe, **hook)
        outcomes.append(said.code)
        if said.code:
            said.expect(1, "changed during the build")
            assert not list((bench.store / "actions").rglob("*.json")), "something was cached"
        for content in (first, other) if said.code == 0 else ():
            file.write_bytes(content.read_bytes())
            bench.built(recipe)
            kept = bench.out / "small" / "latest" / "one" / "model.safetensors"
            assert kept.read_bytes() == content.read_bytes(), f"opening {at}: cached as what it was not"
        if count.stat().st_size < at:
            break
    assert outcomes[-1] == 0, "the file is opened more often than this test looks"
    assert outcomes.count(1) >= 2


def test_changed_option(bench: ProjectFixture) -> None:
    """The step and what hangs on it are built, and the plan says why; the steps before it are kept."""
    bench.built(bench.recipe(*CHAIN))
    recipe = bench.recipe(CHAIN[0], {**CHAIN[1], "text": "other"}, CHAIN[2])
    plan = planned(bench, recipe)
    assert {name: step["state"] for name, step in plan.items()} == {
        "model:files": "cached", "model": "cached", "one": "cached", "two": "build", "gate": "depends",
    }  # fmt: skip
    assert plan["two"]["why"] == ["options.text: two → other"]
    said = bench.built(recipe)
    assert said.json["built"] == ["two", "gate"]
    assert "building  two  because options.text: two → other" in said.err


def test_changed_threshold_judges_without_measuring(bench: ProjectFixture) -> None:
    """A bound is no part of the key: the same measurement passes, fails and passes again."""
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    first = (bench.out / "small" / "latest").readlink()
    bench.run(recipe, "--set", "gate.at_least=2.0").expect(3, "error: step `gate`: score 1.0, at least 2.0 asked")
    assert (bench.out / "small" / "latest").readlink() == first
    assert bench.built(recipe).json["built"] == []
    assert bench.lines("measured") == ["measured"]


def test_failed_gate_keeps_the_earlier_version(bench: ProjectFixture) -> None:
    """Everything is built, nothing is put out, `latest` stays; with --json the code and the name are there."""
    bench.built(bench.recipe(*CHAIN))
    before = sorted(path.name for path in (bench.out / "small").iterdir())
    said = bench.run(bench.recipe(*CHAIN[:2], {**CHAIN[2], "score": 0.1}), "--json").expect(3)
    assert (said.json["error"], said.json["exit_code"]) == ("GateFailed", 3)
    assert sorted(path.name for path in (bench.out / "small").iterdir()) == sorted([*before, "failed"])


def test_raised_stage_version(bench: ProjectFixture) -> None:
    """Its artifacts are made again; where they come out the same, what hangs on them is kept (early cutoff)."""
    recipe = bench.recipe(*CHAIN)
    bench.built(recipe)
    raised = planned(bench, recipe, FAULTY_VERSION="2")
    assert raised["one"]["why"] == ["version: 1 → 2"]
    said = bench.built(recipe, FAULTY_VERSION="2")
    assert said.json["built"] == ["one", "two"]
    assert bench.lines("measured") == ["measured"]


def test_until(bench: ProjectFixture) -> None:
    """--until builds that step and what it is made of, and puts nothing out."""
    recipe = bench.recipe(*CHAIN)
    assert bench.built(recipe, "--until", "one").json["built"] == ["model:files", "model", "one"]
    assert [path.name for path in (bench.out / "small").iterdir()] == ["until"]
    bench.run(recipe, "--until", "wto").expect(2, "no step is called `wto`", "did you mean `two`")


def test_set(bench: ProjectFixture) -> None:
    """--set is as if the recipe said so; what does not exist is 2."""
    recipe = bench.recipe(*CHAIN)
    said = bench.built(recipe, "--set", "two.text=from the command line")
    marker = bench.store / "objects" / said.digests["two"][:2] / said.digests["two"] / "marker.txt"
    assert marker.read_text(encoding="utf-8") == "from the command line\n"
    written = bench.built(bench.recipe(CHAIN[0], {**CHAIN[1], "text": "from the command line"}, CHAIN[2]))
    assert written.json["built"] == []
    for wrong in ("two.txt=1", "owt.text=1", "two.text=[1]", "two"):
        bench.run(recipe, "--set", wrong).expect(2, "--set")


def test_keep_going(bench: ProjectFixture) -> None:
    """--keep-going: 6 when some recipes failed; the others come out. Without it the first failure ends it: its code."""
    bad = bench.recipe({"id": "one", "act": "raise"}, name="bad")
    good = bench.recipe({"id": "one", "text": "good"}, name="good")
    arguments = ["run", bad, good, "--store", bench.store, "--out", bench.out]
    bench.call(*arguments).expect(1)
    assert not (bench.out / "good").exists()
    said = bench.call(*arguments, "--keep-going", "--json").expect(6, "step `one`")
    assert [(one["recipe"], one["exit_code"]) for one in json.loads(said.out)] == [("bad", 1), ("good", 0)]
    assert (bench.out / "good" / "latest" / "one").is_dir()
    bench.call("run", bad, "--keep-going", "--store", bench.store, "--out", bench.out).expect(1)


@pytest.mark.parametrize(
    ("act", "code", "name"), [("raise", 1, "StageFailed"), ("full", 75, "TryAgain"), ("segfault", 1, "StageFailed")]
)
def test_json_names_the_error(bench: ProjectFixture, act: str, code: int, name: str) -> None:
    """--json carries the exit code and the error's name, and nothing else is on stdout."""
    said: CommandResult = bench.run(bench.recipe({"id": "one", "act": act}), "--json").expect(code)
    assert (said.json["exit_code"], said.json["error"]) == (code, name)


def test_remeasure_measures_again_what_the_machine_shapes_and_nothing_else(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*CHAIN, {"id": "speed", "use": "faulty.measure", "from": {"candidate": "two"}})
    bench.built(recipe)
    before = bench.lines()
    assert bench.built(recipe).json["built"] == []
    assert bench.lines() == before
    again = bench.built(recipe, "--remeasure")
    assert again.json["built"] == ["speed"]
    assert len(bench.lines("ended measure")) == 2
    assert bench.built(recipe).json["built"] == []
