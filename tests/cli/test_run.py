"""What `run` prints, for people and as JSON, and how it ends over several recipes."""

from __future__ import annotations

import json

from project import ProjectFixture


def test_says_what_was_checked_and_where_it_is(built: ProjectFixture) -> None:
    said = built.run(built.home / "small.yaml").expect(0)
    version = (built.out / "small" / "latest").resolve().name
    assert said.out.splitlines() == [
        "passed  gate: score 1.0, at least 0.5 asked",
        "small: 0 steps built, 5 cached",
        f"unchanged  {built.out / 'small' / version}",
        f"report  {built.out / 'small' / version / 'report.md'}",
    ]
    assert all(line.startswith("cached ") for line in said.err.splitlines())


def test_says_it_as_json(built: ProjectFixture) -> None:
    said = built.built(built.home / "small.yaml", "--set", "two.text=new").json
    assert (said["recipe"], said["exit_code"], said["fresh"], said["built"]) == ("small", 0, True, ["two", "gate"])
    assert said["outputs"]["two"]["digest"] == said["steps"]["two"]["digest"]
    assert said["checks"]["gate"][0]["passed"] is True


def test_until_puts_nothing_out_and_says_where_the_step_is(built: ProjectFixture) -> None:
    before = sorted(built.out.rglob("*"))
    said = built.run(built.home / "small.yaml", "--until", "one").expect(0)
    name, path = said.out.splitlines()[-1].split()
    assert name == "one" and path.startswith(str(built.store / "objects"))
    assert sorted(built.out.rglob("*")) == before


def test_goes_on_with_the_next_recipe_when_told_to(built: ProjectFixture) -> None:
    bad = built.recipe({"id": "one", "text": "bad", "act": "raise"}, name="bad")
    good = built.recipe({"id": "one"}, name="good")
    said = built.call("run", bad, good, "--store", built.store, "--out", built.out, "--json", "--keep-going")
    assert said.code == 6
    first, second = json.loads(said.out)
    assert (first["recipe"], first["exit_code"], first["error"]) == ("bad", 1, "StageFailed")
    assert (second["recipe"], second["exit_code"]) == ("good", 0)
    said = built.call("run", bad, good, "--store", built.store, "--out", built.out / "x", "--json")
    assert said.code == 1 and [one["recipe"] for one in json.loads(said.out)] == ["bad"]


def test_reads_every_recipe_before_the_first_is_built(built: ProjectFixture) -> None:
    (built.home / "wrong.yaml").write_text("model: {folder: model}\n")
    good = built.recipe({"id": "one", "text": "fresh"}, name="good")
    said = built.call("run", good, built.home / "wrong.yaml", "--store", built.store, "--out", built.out)
    said.expect(2, "`task` is missing")
    assert "building" not in said.err
