"""A failed gate ends in a report: which step lost it, which rows flipped, what to try, what stays in service."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import pytest
from markdown_it import MarkdownIt
from project import CommandResult, ProjectFixture
from tokenizers import Tokenizer

from cpu_pipeline.release.failures import write
from cpu_pipeline.release.failures.write import KEEP, failed_reports, prune

ROWS = 40
FIRST = {"id": "first", "form": "toy", "text": "0"}
"""A toy model: it says whether most ids of a text are odd."""
DATA = {"validation": {"file": "rows.jsonl"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ProjectFixture:
    """Give a project with a real checkpoint, and rows with the label that the toy model gives; not to be changed."""
    bench = ProjectFixture(tmp_path_factory.mktemp("failures") / "project")
    shutil.rmtree(bench.home / "model")
    models.make("bert", bench.home / "model", "text-classification")
    tokenizer = Tokenizer.from_file(str(bench.home / "model" / "tokenizer.json"))
    rows = models.rows("text-classification", ROWS)
    for number, row in enumerate(rows):
        odd = [number % 2 for number in tokenizer.encode(row["text"]).ids]
        row |= {"id": f"r{number}", "label": int(2 * sum(odd) > len(odd))}
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench.run(bench.recipe(FIRST, data=DATA)).expect(0)
    shutil.rmtree(bench.out)
    return bench


@pytest.fixture
def bench(base: ProjectFixture, tmp_path: Path) -> ProjectFixture:
    """Give a copy of it, to be changed."""
    shutil.copytree(base.home, tmp_path / "project", symlinks=True)
    return ProjectFixture(tmp_path / "project", model=False)


def failed(bench: ProjectFixture, *shifts: float, run: tuple[object, ...] = (), **gate: float) -> CommandResult:
    """Run a chain of toy models, each shifted against the one before, whose last is judged against the first."""
    chain = [{"id": f"s{number}", "use": "faulty.shift", "by": by} for number, by in enumerate(shifts)]
    judge = {"id": "right", "use": "validate.accuracy", "from": {"reference": "first"}, "min_rows": 10, **gate}
    recipe = bench.recipe(FIRST, *chain, judge, data=DATA)
    return bench.run(recipe, *run).expect(3, "nothing is put into service; ", "; report: " if run else "report: ")


def report(bench: ProjectFixture) -> tuple[str, Mapping[str, Any]]:
    folder = failed_reports(bench.out / "small")[-1]
    document = json.loads((folder / "failure.json").read_text())
    return (folder / "report.md").read_text(), document


def test_the_step_that_lost_it_is_found_by_halves(bench: ProjectFixture) -> None:
    said = failed(bench, 0.0, 9.0, 0.0, 0.0, max_drop=0.05)
    text, document = report(bench)
    [gate] = document["gates"]
    assert gate["trace"]["step"] == "s1" and gate["trace"]["steps"] == ["s0", "s1", "s2", "s3"]
    assert set(gate["trace"]["judged"]) == {"s0", "s1"}, "s2 need not be asked"
    assert "Lost by `s1`" in text and "tracing   right: does `s1` pass?" in said.err
    assert "s1.by" in text and [one["option"] for one in gate["advice"] if one["step"] == "s1"] == ["by"]
    assert not (bench.out / "small" / "latest").exists()


def test_the_candidate_itself_is_blamed_where_it_is_the_only_step(bench: ProjectFixture) -> None:
    failed(bench, 9.0, max_drop=0.05)
    _, document = report(bench)
    assert document["gates"][0]["trace"]["step"] == "s0"
    assert document["in_service"] is None and document["run"] == failed_reports(bench.out / "small")[-1].name


def test_a_reference_that_fails_the_bound_is_told(bench: ProjectFixture) -> None:
    rows = [json.loads(line) for line in (bench.home / "rows.jsonl").read_text().splitlines()]
    for row in rows[::2]:
        row["label"] = 1 - row["label"]
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed(bench, 0.0, at_least=0.99)
    text, document = report(bench)
    assert document["gates"][0]["trace"]["step"] is None and "the reference itself does not pass" in text
    assert {one["step"] for one in document["gates"][0]["advice"]} == {"right"}, "no option of a step mends that"


def test_the_rows_that_flipped_are_there_with_their_texts(bench: ProjectFixture) -> None:
    failed(bench, 9.0, max_drop=0.05)
    text, document = report(bench)
    [gate] = document["gates"]
    rows = {row["id"]: row for row in map(json.loads, (bench.home / "rows.jsonl").read_text().splitlines())}
    wrong = [name for name, row in rows.items() if row["label"] == 0]
    assert gate["lost"] == len(wrong) and gate["of"] == ROWS and 0 < len(wrong) < ROWS
    assert {row["id"] for row in gate["rows"]} == set(wrong)
    for row in gate["rows"]:
        assert row["row"]["text"] == rows[row["id"]]["text"]
        assert (row["reference"]["label"], row["candidate"]["label"]) == (0, 1)
    shown = MarkdownIt("commonmark").enable("table").render(text)
    assert shown.count("<tr>") > len(gate["rows"][:20])
    assert f"{len(wrong)} of {ROWS} rows" in text


def test_old_reports_are_removed(tmp_path: Path) -> None:
    for number in range(KEEP + 3):
        (tmp_path / "failed" / f"20260101T0000{number:02}").mkdir(parents=True)
    prune(tmp_path)
    assert [path.name for path in failed_reports(tmp_path)] == [f"20260101T0000{n:02}" for n in range(3, KEEP + 3)]
    assert failed_reports(tmp_path / "none") == []


def test_a_trial_that_fails_says_both(bench: ProjectFixture) -> None:
    said = failed(bench, 9.0, run=("--limit", "20"), max_drop=0.05)
    assert "what was built is in" in said.err and (bench.out / "small" / "trial" / "manifest.json").is_file()
    text, document = report(bench)
    assert "Not for service anyhow: it is a trial" in text and document["withheld"]


def test_what_stays_is_said() -> None:
    failure = write.Failure("small", "run", (), "abc")
    assert write.stays(failure) == "abc stays in service."


def test_a_trial_is_marked_and_kept_apart(bench: ProjectFixture) -> None:
    gate = {"id": "right", "use": "validate.accuracy", "from": {"candidate": "s0", "reference": "first"}}
    recipe = bench.recipe(FIRST, {"id": "s0", "use": "faulty.shift", "by": 0.0}, {**gate, "at_least": 0.001}, data=DATA)
    said = bench.built(recipe, "--limit", "8").json
    assert said["steps"]["data.validation"]["facts"]["rows"] == 8
    assert said["path"].endswith("small/trial") and "at most 8 rows" in said["not_for_service"][0]
    assert not (bench.out / "small" / "latest").exists()
    whole = bench.run(recipe, "--set", "right.min_rows=10").expect(0)
    assert "building  right  because never built" in whole.err, "it is not built because of the trial"
    more = bench.built(recipe, "--limit", "500").json
    assert more["steps"]["data.validation"]["facts"]["rows"] == ROWS


def test_sets_what_the_recipe_says_of_data(bench: ProjectFixture) -> None:
    recipe = bench.recipe(FIRST, data=DATA)
    said = bench.built(recipe, "--set", "data.validation.take=7").json
    assert said["steps"]["data.validation"]["facts"]["rows"] == 7
    for given, says in [
        ("data.validation.take=none", "--set data.validation.take: "),
        ("data.validation.tkae=7", "tkae"),
        ("data.valdation.take=7", "the recipe has no such data (did you mean `validation`?); it has validation"),
        ("data.take=7", "or data.ROLE.OPTION=VALUE"),
    ]:
        assert says in bench.run(recipe, "--set", given).expect(2).err


def test_flips_are_listed_both_ways_of_a_failed_run_and_of_a_version(bench: ProjectFixture, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (bench.home / "rows.jsonl").read_text().splitlines()]
    for row in rows[:4]:
        row["label"] = 1 - row["label"]
    rows[9]["id"] = "r|<b>`9"
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed(bench, 9.0, max_drop=0.05)
    folder = failed_reports(bench.out / "small")[-1]
    flipped = bench.call("flips", folder, "--store", bench.store, "--json").expect(0).json
    lost, won = ([flip for flip in flipped if flip["way"] == way] for way in ("lost", "won"))
    assert lost and won and len(lost) + len(won) == len(flipped)
    assert {(flip["metric"], flip["reference_score"], flip["candidate_score"]) for flip in lost} == {("accuracy", 1, 0)}
    assert {(flip["reference_score"], flip["candidate_score"]) for flip in won} == {(0, 1)}
    assert {flip["id"] for flip in won} <= {f"r{number}" for number in range(4)}
    assert all(flip["reference"]["label"] != flip["candidate"]["label"] and flip["row"]["text"] for flip in flipped)
    text, document = report(bench)
    assert document["gates"][0]["won"] == len(won)
    assert f"{len(won)} rows are answered better than by the reference." in text

    judge = {
        "id": "right",
        "use": "validate.accuracy",
        "from": {"reference": "first"},
        "min_rows": 10,
        "max_drop": 0.99,
    }
    chain = {"id": "s0", "use": "faulty.shift", "by": 9.0}
    bench.run(bench.recipe(FIRST, chain, judge, data=DATA)).expect(0)
    latest = bench.out / "small" / "latest"
    ours = bench.call("flips", latest, "--store", bench.store, "--json").expect(0).json
    assert ours == flipped
    assert bench.call("flips", latest / "s0", "--store", bench.store, "--json").expect(0).json == flipped
    bare = bench.call("flips", latest, "--store", tmp_path / "other", "--json").expect(0).json
    assert [{**flip, "row": {}} for flip in flipped] == bare
    shown = bench.call("flips", latest, "--store", bench.store).expect(0).out
    assert len(shown.splitlines()) == len(flipped) and "accuracy 1.00 → 0.00" in shown
    written = (latest / "report.md").read_text()
    assert f"{len(lost)} rows that the reference answers right" in written
    assert "<b>" not in written or "`r¦<b>'9`" in written, "inside code nothing is markup"
    bench.call("flips", bench.home, "--store", bench.store).expect(2, "no version, no output of one")
