"""Looks at the rows in parts: each row is predicted once, and none after a look has decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core import jsonl
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.runtime import looks
from cpu_pipeline.stages import predict
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.predict import Predict
from cpu_pipeline.stages.validate.accuracy import ValidateAccuracy
from cpu_pipeline.stages.validate.look import ValidateLook
from cpu_pipeline.tasks.text_classification import TextClassification

COUNT = 400
ROWS = [{"id": str(i), "text": f"{i}", "label": i % 2, "group": i // 8} for i in range(COUNT)]
ORDER = looks.order(ROWS)


class Pretended:
    """Answers with what each row says, and counts the rows."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.answered = tmp_path, list[str]()
        jsonl.write_jsonl(tmp_path / "rows.jsonl", ROWS)
        self.wrong: frozenset[str] = frozenset()
        task = TextClassification()
        self.job = Job(load=lambda _: None, timer=None, task=task, data={"validation": tmp_path / "rows.jsonl"})  # type: ignore[arg-type, return-value]  # nothing is loaded
        monkeypatch.setattr(TextClassification, "input_kinds", lambda *_: {})
        monkeypatch.setattr(TextClassification, "encode", lambda *_: [])
        monkeypatch.setattr(predict, "_predict", self._answer)

    def _answer(self, task: Any, model: Path, session: Any, kinds: Any, rows: Any, *_: Any) -> list[dict[str, Any]]:
        self.answered += [row["id"] for row in rows]
        wrong = self.wrong if model.name == "candidate" else frozenset()
        return [{"id": row["id"], "label": 1 - row["label"] if row["id"] in wrong else row["label"]} for row in rows]

    def run(self, side: str, part: int | None, before: Path | None = None, decision: Path | None = None) -> Path:
        out = self.home / f"{side}-{part}"
        out.mkdir()
        inputs = {"model": Artifact("hf", self.home / side, "", {})}
        inputs |= {} if before is None else {"before": Artifact("predictions", before, "", {})}
        inputs |= {} if decision is None else {"decision": Artifact("decision", decision, "", {})}
        Predict(part=part, parts=4).run(inputs, out, self.job)
        return out

    def look(self, number: int, sides: dict[str, Path], **options: Any) -> Path:
        out = self.home / f"look-{number}"
        out.mkdir()
        inputs = {side: Artifact("predictions", path, "", {}) for side, path in sides.items()}
        ValidateLook(look=number, on_inconclusive="more", **options).run(inputs, out, self.job)
        return out

    def chain(self, **options: Any) -> tuple[dict[str, Path], list[bool]]:
        """Run the parts and looks as the graph chains them."""
        sides: dict[str, Path] = {}
        decision: Path | None = None
        decided = []
        for part in range(1, 5):
            sides = {side: self.run(side, part, sides.get(side), decision) for side in ("candidate", "reference")}
            if part < 4:
                decision = self.look(part, sides, **options)
                decided.append(json.loads((decision / "decision.json").read_text())["decided"])
        return sides, decided

    def judge(self, sides: dict[str, Path], **options: Any) -> Any:
        out = self.home / "gate"
        out.mkdir()
        stage = ValidateAccuracy(on_inconclusive="more", **options)
        inputs = {side: Artifact("predictions", path, "", {}) for side, path in sides.items()}
        facts = stage.run(inputs, out, self.job)
        return facts, stage.judge(facts)[-1]


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(tmp_path, monkeypatch)


def test_a_clear_pass_costs_a_quarter_of_the_predictions(pretended: Pretended) -> None:
    pretended.wrong = frozenset({str(ORDER[3])})
    sides, decided = pretended.chain(max_drop=0.3)
    assert decided == [True, True, True]
    assert sorted(pretended.answered) == sorted([str(i) for i in ORDER[:100]] * 2), "each row once for each side"
    facts, verdict = pretended.judge(sides, max_drop=0.3)
    assert (facts.rows, facts.total, len(facts.looks)) == (100, COUNT, 1)
    assert verdict.outcome == "pass" and verdict.says.endswith("look 1 of 4, 100 of 400 rows")
    assert [look.quantile for look in facts.looks] == pytest.approx([3.750], abs=1e-3)


def test_a_clear_fail_stops_as_early(pretended: Pretended) -> None:
    pretended.wrong = frozenset(row["id"] for row in ROWS if row["label"])
    sides, decided = pretended.chain(max_drop=0.1)
    assert decided[0] and len(pretended.answered) == 200
    assert pretended.judge(sides, max_drop=0.1)[1].outcome == "fail"


def test_what_stays_open_is_predicted_to_the_end_and_each_row_once(pretended: Pretended) -> None:
    pretended.wrong = frozenset(str(i) for i in ORDER[::40])  # 2.5 % of each part
    sides, decided = pretended.chain(max_drop=0.03)
    assert decided == [False, False, False]
    assert sorted(pretended.answered) == sorted([row["id"] for row in ROWS] * 2)
    ids = [line["id"] for line in jsonl.read_jsonl(sides["candidate"] / "predictions.jsonl")]
    assert ids == [row["id"] for row in ROWS], "in the order of the rows"
    facts, verdict = pretended.judge(sides, max_drop=0.03)
    assert [look.rows for look in facts.looks] == [100, 200, 300, 400]
    assert (verdict.passed, verdict.outcome) == (False, "inconclusive")


def test_what_a_look_writes_is_its_decision_alone(pretended: Pretended) -> None:
    """So a later part is keyed by whether it is needed, and by no figure."""
    pretended.chain(max_drop=0.3)
    texts = {path.read_text() for path in pretended.home.glob("look-*/*")}
    assert texts == {'{"decided": true}\n'}


def test_a_look_on_fewer_rows_than_asked_decides_nothing(pretended: Pretended) -> None:
    _, decided = pretended.chain(max_drop=0.3, min_rows=150)
    assert decided == [False, True, True]


def test_a_slice_that_is_open_keeps_looking(pretended: Pretended) -> None:
    pretended.wrong = frozenset({str(ORDER[3])})
    _, decided = pretended.chain(max_drop=0.3, slices={"column": "label", "max_drop": 0.06})
    assert decided[0] is False


def test_other_predictions_of_more_rows_are_cut_to_those_of_both_sides(pretended: Pretended) -> None:
    few, whole = pretended.run("candidate", 1), pretended.run("reference", None)
    facts, verdict = pretended.judge({"candidate": few, "reference": whole}, max_drop=0.3)
    assert facts.rows == 100 and facts.counts["reference"].unknown == 0 and verdict.passed
