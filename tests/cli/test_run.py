"""What `run` prints, for people and as JSON, and how it ends over several recipes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from project import ProjectFixture


def test_says_what_was_checked_and_where_it_is(built: ProjectFixture) -> None:
    said = built.run(built.home / "small.yaml").expect(0)
    version = (built.out / "small" / "latest").resolve().name
    size = re.search(r"[0-9.]+ KiB", said.out)
    assert size is not None
    assert said.out.splitlines() == [
        f"output  {'size':{len(size[0])}}  measured, and of the reference  gates   path",
        f"two     {size[0]}  -                               passed  {built.out / 'small' / version / 'two'}",
        "small: 0 steps built, 5 cached",
        "warning  Unchecked: no gate judged the answers of `two` against the float model: a test",
        f"unchanged  {built.out / 'small' / version}",
        f"report  {built.out / 'small' / version / 'report.md'}",
    ]
    *cached, gate = said.err.splitlines()
    assert all(line.startswith("cached ") for line in cached)
    assert gate == "passed    gate: score 1.0, at least 0.5 asked"


def test_says_it_as_json(built: ProjectFixture) -> None:
    said = built.built(built.home / "small.yaml", "--set", "two.text=new").json
    assert (said["recipe"], said["exit_code"], said["fresh"], said["built"]) == ("small", 0, True, ["two", "gate"])
    assert said["outputs"]["two"]["digest"] == said["steps"]["two"]["digest"]
    assert said["checks"]["gate"][0]["passed"] is True


def service(built: ProjectFixture) -> tuple[str, str]:
    """Return what is in service, and every promotion so far."""
    home = built.out / "small"
    return (home / "latest").resolve().name, (home / "promotions.jsonl").read_text()


def last_run(built: ProjectFixture) -> dict[str, Any]:
    folder = max((built.store / "runs").iterdir())
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def test_until_gives_a_folder_to_use_and_promotes_nothing(built: ProjectFixture) -> None:
    before = service(built)
    said = built.run(built.home / "small.yaml", "--until", "one").expect(0)
    folder = built.out / "small" / "until" / "one"
    assert f"wrote  {folder}, not for service: it was built until `one` (--until)" in said.out
    assert (folder / "one" / "marker.txt").read_text() == "same\n"
    assert "from_pretrained" in (folder / "report.md").read_text()
    assert "Not for service: it was built until" in (folder / "report.md").read_text()
    assert "Not for service" in (folder / "one" / "README.md").read_text()
    assert service(built) == before
    record = last_run(built)
    assert record["withheld"] == ["it was built until `one` (--until)"] and record["puts_out"] == []
    assert record["aside"] == str(folder) and "version" not in record
    said = built.run(built.home / "small.yaml", "--until", "gate").expect(0)
    assert (built.out / "small" / "until" / "gate" / "gate" / "score.txt").read_text() == "1.0\n"
    assert built.call("verify", folder).code == 0


def test_what_is_set_aside_is_no_version(built: ProjectFixture) -> None:
    built.run(built.home / "small.yaml", "--until", "one").expect(0)
    built.run(built.home / "small.yaml", "--skip", "gate").expect(0)
    home = built.out / "small"
    assert {"until", "unchecked"} < {path.name for path in home.iterdir()}
    known = built.call("history", "small", "--json", "--store", built.store, "--out", built.out).json["versions"]
    assert [one["version"] for one in known] == [(home / "latest").resolve().name]
    for name in ("until", "unchecked"):
        built.call("rollback", "small", name, "--store", built.store, "--out", built.out).expect(2, "no version")
    built.call("store", "gc", "--store", built.store).expect(0)
    built.call("status", "small.yaml", "--store", built.store, "--out", built.out).expect(0)


def test_a_gate_that_is_skipped_keeps_everything_out_of_service(built: ProjectFixture) -> None:
    before = service(built)
    recipe = built.home / "small.yaml"
    said = built.built(recipe, "--skip", "gate", "--set", "two.text=new").json
    assert said["not_for_service"] == ["`gate` did not judge it (--skip)"] and said["checks"] == {}
    assert said["path"] == str(built.out / "small" / "unchecked") and service(built) == before
    assert said["outputs"]["two"]["path"] == str(built.out / "small" / "unchecked" / "two")
    built.run(recipe, "--skip", "one").expect(2, "--skip one: it is no gate; what can be left out: gate")
    built.run(recipe, "--skip", "gates").expect(2, "no step is called `gates` (did you mean `gate`?)")
    built.run(recipe, "--locked", "--skip", "gate").expect(2, "leave out --skip")


def test_without_measuring(built: ProjectFixture) -> None:
    measure = {"id": "speed", "use": "faulty.measure", "runs": built.runs}
    recipe = built.recipe({"id": "one"}, {"id": "gate", "use": "faulty.gate"}, measure)
    said = built.built(recipe, "--no-measure").json
    assert said["not_for_service"] == ["`speed` did not measure it (--no-measure)"]
    assert "gate" in said["checks"] and "speed" not in said["steps"] and not built.lines("ended measure")
    # A recipe that measures nothing is built as ever.
    assert built.built(built.recipe({"id": "one"}, name="other"), "--no-measure").json["not_for_service"] == []


def test_a_failed_gate_ends_in_a_report(built: ProjectFixture) -> None:
    before = service(built)
    said = built.run(built.home / "small.yaml", "--set", "gate.at_least=2.0", "--promote-anyway", "a test").expect(
        3, f"{before[0]} stays in service; report: {built.out / 'small' / 'failed'}"
    )
    assert said.err.splitlines()[-2] == "error: step `gate`: score 1.0, at least 2.0 asked"
    assert [line.split()[0] for line in said.out.splitlines()] == ["output", "two"] and "FAILED" in said.out
    report = Path(said.err.rpartition("report: ")[2].strip())
    assert "step `gate`" not in said.out and report.is_file() and service(built) == before
    assert last_run(built)["report"] == str(report.parent)
    listed = built.call("history", "small", "--store", built.store, "--out", built.out, "--json").json["runs"][0]
    assert listed["report"] == str(report.parent)
    written = json.loads((report.parent / "failure.json").read_text())
    assert written["gates"][0]["checks"][0]["by"] == 1.0 and written["in_service"] == before[0]
    shown = built.call("status", "small.yaml", "--store", built.store, "--out", built.out).expect(5)
    assert f"report: {report}" in shown.err


def test_cheap_steps_of_all_recipes_come_before_the_first_measurement(built: ProjectFixture) -> None:
    def recipe(name: str, **more: object) -> Path:
        measure = {"id": "speed", "use": "faulty.measure", "runs": built.runs, "from": {"candidate": "one"}}
        return built.recipe({"id": "one", "text": name, **more}, measure, name=name)

    recipes = [recipe("a"), recipe("b"), built.recipe({"id": "one", "text": "c"}, name="c")]
    said = built.call("run", *recipes, "--store", built.store, "--out", built.out).expect(0)
    kinds = [line.split()[1] for line in built.lines("ended")]
    assert kinds[-2:] == ["measure", "measure"] and {"a", "b", "c"} <= set(kinds[:-2])
    assert all((built.out / name / "latest").is_dir() for name in "abc")
    assert len([line for line in said.err.splitlines() if line.endswith(" model:files")]) == 3, "each is told of once"
    # One that fails early keeps its place: those before it are measured and promoted, those after are not.
    recipes = [recipe("d"), recipe("e", act="raise"), recipe("f")]
    said = built.call("run", *recipes, "--store", built.store, "--out", built.out, "--json")
    assert said.code == 1 and [one["exit_code"] for one in said.json] == [0, 1]
    assert not (built.out / "f").exists() and (built.out / "d" / "latest").is_dir()
    runs = built.call("history", "--store", built.store, "--out", built.out, "--json").json["runs"]
    assert [(one["name"], one["exit_code"]) for one in runs[:2]] == [("d", 0), ("e", 1)]


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
