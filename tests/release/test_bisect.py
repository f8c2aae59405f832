"""`bisect` names the step that lost the answers, by the same rows for every model, and reuses what is cached."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from project import ProjectFixture
from tokenizers import Tokenizer

FIRST = {"id": "first", "form": "toy", "text": "0"}
CHAIN = [{"id": f"s{number}", "use": "faulty.shift", "by": by} for number, by in enumerate((0.0, 9.0, 0.0))]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> ProjectFixture:
    """Give a chain of toy models of which the third shifts every answer, and rows that the first one answers right."""
    made = ProjectFixture(tmp_path_factory.mktemp("bisect") / "project")
    shutil.rmtree(made.home / "model")
    models.make("bert", made.home / "model", "text-classification")
    tokenizer = Tokenizer.from_file(str(made.home / "model" / "tokenizer.json"))
    for role, seed in (("validation", 0), ("selection", 1)):
        rows = models.rows("text-classification", 40, seed)
        for number, row in enumerate(rows):
            odd = [each % 2 for each in tokenizer.encode(row["text"]).ids]
            row |= {"id": f"{role}{number}", "label": int(2 * sum(odd) > len(odd))}
        (made.home / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def bisect(bench: ProjectFixture, recipe: Path, *more: object) -> Any:
    return bench.call(
        "bisect", recipe, "--store", bench.store, "--out", bench.out, "--no-measure", "--json", *more
    ).expect(0)


def test_the_step_that_lost_it_is_named(bench: ProjectFixture) -> None:
    recipe = bench.recipe(FIRST, *CHAIN, data={"validation": {"file": "validation.jsonl"}})
    found = bisect(bench, recipe).json
    Draft202012Validator(json.loads((ROOT / "docs/reference/json/bisect.json").read_text())).validate(found)
    steps = {step["step"]: step for step in found["steps"]}
    assert list(steps) == ["first", "s0", "s1", "s2"]
    assert (found["worst"], found["role"], found["rows"], found["metric"]) == ("s1", "validation", 40, "accuracy")
    assert [step["verdict"] for step in steps.values()][1:] == ["uncertain", "lost", "uncertain"]
    assert steps["s1"]["before"] == "s0"
    assert steps["s1"]["difference"] == pytest.approx(steps["s1"]["value"] - steps["s0"]["value"])
    assert steps["s1"]["low"] <= steps["s1"]["difference"] <= steps["s1"]["high"] < 0
    assert steps["s0"]["difference"] == steps["s2"]["difference"] == 0
    assert all(step["size"] > 0 and step["speedup"] is None for step in steps.values())
    text = (bench.out / "small" / "bisect" / "report.md").read_text()
    assert "lost most: accuracy" in text and "40 rows of `data.validation`" in text
    assert json.loads((bench.out / "small" / "bisect" / "bisect.json").read_text()) == found
    assert not (bench.out / "small" / "latest").exists()
    before = len(bench.lines())
    again = bisect(bench, recipe, "--step", "s1")
    assert [step["step"] for step in again.json["steps"]] == ["first", "s0", "s1"]
    assert len(bench.lines()) == before, "everything was cached"


def test_selection_rows_come_first(bench: ProjectFixture) -> None:
    data = {role: {"file": f"{role}.jsonl"} for role in ("selection", "validation")}
    recipe = bench.recipe(FIRST, *CHAIN[:1], data=data, name="chosen")
    assert bisect(bench, recipe, "--metric", "f1").json["role"] == "selection"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--metric", "acuracy"], "--metric acuracy: no such metric (did you mean `accuracy`?)"),
        (["--step", "s9"], "--step s9: no step that makes a model of another is called `s9`"),
    ],
)
def test_what_is_not_there_is_refused(options: list[str], says: str, bench: ProjectFixture) -> None:
    recipe = bench.recipe(FIRST, *CHAIN, data={"validation": {"file": "validation.jsonl"}})
    bench.call("bisect", recipe, "--store", bench.store, *options).expect(2, says)


def test_rows_are_needed(bench: ProjectFixture) -> None:
    bench.call("bisect", bench.recipe(FIRST, name="bare"), "--store", bench.store).expect(2, "bisect needs rows")
