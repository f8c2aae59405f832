"""A failed gate ends in a report: which step lost it, which rows flipped, what to try, what stays in service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from project import CommandResult, ProjectFixture

from cpu_pipeline.release.failures import write
from cpu_pipeline.release.failures.write import KEEP, failed_reports, prune

WORDS = ("good", "bad", "a", "film", "day")
ROWS = 40


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    """Give a project whose toy models say whether most ids of a text are odd, and rows with that label."""
    bench = ProjectFixture(tmp_path / "project")
    tokens = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    rows = []
    for number in range(ROWS):
        words = [WORDS[number % 5], WORDS[(number + number // 5) % 5], WORDS[number * 3 % 5]]
        odd = [tokens[word] % 2 for word in ("[CLS]", *words, "[SEP]")]
        rows.append({"id": f"r{number}", "text": " ".join(words), "label": int(2 * sum(odd) > len(odd))})
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return bench


def failed(bench: ProjectFixture, *shifts: float, run: tuple[object, ...] = (), **gate: float) -> CommandResult:
    """Run a chain of toy models, each shifted against the one before, whose last is judged against the first."""
    first = {"id": "first", "form": "toy", "text": "0"}
    chain = [{"id": f"s{number}", "use": "faulty.shift", "by": by} for number, by in enumerate(shifts)]
    judge = {"id": "right", "use": "validate.accuracy", "from": {"reference": "first"}, "min_rows": 10, **gate}
    recipe = bench.recipe(first, *chain, judge, data={"validation": {"file": "rows.jsonl"}})
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
