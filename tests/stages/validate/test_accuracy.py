"""The accuracy gate passes what it should and fails on everything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpu_pipeline.core import jsonl
from cpu_pipeline.core.artifact import Artifact, canonical
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime import tango
from cpu_pipeline.stages._base import Job, Verdict, stored_facts
from cpu_pipeline.stages.validate.accuracy import AccuracyFacts, ValidateAccuracy
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification
from cpu_pipeline.tasks.token_classification import TokenClassification

COUNT = 200
QA = QuestionAnswering()


def _predicted(path: Path, predictions: list[dict[str, Any]]) -> Artifact:
    path.mkdir()
    jsonl.write_jsonl(path / "predictions.jsonl", predictions)
    return Artifact("predictions", path, "", {})


def _facts(
    tmp_path: Path,
    stage: ValidateAccuracy,
    candidate: list[dict[str, Any]],
    reference: list[dict[str, Any]],
    gold: list[dict[str, Any]] | None = None,
    task: Task = QA,
) -> AccuracyFacts:
    tmp_path.mkdir(exist_ok=True)
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    jsonl.write_jsonl(data, _gold() if gold is None else gold)
    out.mkdir()
    sides = {"candidate": _predicted(tmp_path / "c", candidate), "reference": _predicted(tmp_path / "r", reference)}
    job = Job(load=None, timer=None, task=task, data={"validation": data})  # type: ignore[arg-type]
    facts = stage.run(sides, out, job)
    canonical(stored_facts(facts))  # facts are JSON without NaN
    assert [p.name for p in out.iterdir()] == ["scores.jsonl"]
    return facts


def _gold(count: int = COUNT) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "question": "?", "context": "", "answers": {"text": [f"red {i}"], "answer_start": [0]}}
        for i in range(count)
    ]


def _said(wrong: int, count: int = COUNT) -> list[dict[str, Any]]:
    return [{"id": str(i), "prediction_text": f"blue x{i}" if i < wrong else f"red {i}"} for i in range(count)]


def _failed(verdicts: list[Verdict]) -> list[str]:
    return [verdict.check for verdict in verdicts if not verdict.passed]


def test_a_model_against_itself_passes(tmp_path: Path) -> None:
    stage = ValidateAccuracy(max_drop=0)
    facts = _facts(tmp_path, stage, _said(20), _said(20))
    expected = {"candidate": 0.9, "reference": 0.9, "difference": 0, "low": 0, "high": 0, "lower": 0, "upper": 0}
    expected |= {"method": "identical", "deviation": 0, "gained": 0, "lost": 0}
    assert stored_facts(facts)["metrics"] == {"f1": expected, "exact_match": expected}
    assert facts.identical and facts.rows == COUNT
    assert facts.counts["candidate"].missing == 0
    assert [v.check for v in stage.judge(facts)] == ["rows", "answers", "f1"]
    assert _failed(stage.judge(facts)) == []


def test_a_share_of_nothing_is_not_allowed(tmp_path: Path) -> None:
    """Rows that fit nothing let everything pass: 0 is no drop below 0."""
    facts = _facts(tmp_path, ValidateAccuracy(max_drop=0.1), _said(0), _said(0))
    nothing = facts.metrics["f1"].model_copy(update={"candidate": 0.0, "reference": 0.0})
    facts = facts.model_copy(update={"metrics": {**facts.metrics, "f1": nothing}})
    [*_, verdict] = ValidateAccuracy(max_drop=0.1, drop="relative").judge(facts)
    assert not verdict.passed and "it answers nothing right" in verdict.says
    assert _failed(ValidateAccuracy(max_drop=0.1).judge(facts)) == []


def test_a_drop_is_judged_absolutely_or_relatively(tmp_path: Path) -> None:
    facts = _facts(tmp_path, ValidateAccuracy(max_drop=0.1), _said(110), _said(100))  # 0.45 against 0.5
    found = facts.metrics["f1"]
    assert found.difference == pytest.approx(-0.05)
    assert (found.gained, found.lost, found.method) == (0, 10, "tango")
    assert found.lower == pytest.approx(tango.lower(0, 10, COUNT, 1.6448536))
    assert found.low is not None and found.lower is not None and found.upper is not None
    assert -0.1 < found.low < found.lower < -0.05 < found.upper < 0
    # The thresholds are unkeyed: the same facts are judged anew.
    assert _failed(ValidateAccuracy(max_drop=-found.lower).judge(facts)) == []
    assert _failed(ValidateAccuracy(max_drop=-found.lower - 1e-4).judge(facts)) == ["f1"]
    assert _failed(ValidateAccuracy(max_drop=-found.lower * 2, drop="relative").judge(facts)) == []
    assert _failed(ValidateAccuracy(max_drop=-found.lower * 2 - 1e-4, drop="relative").judge(facts)) == ["f1"]
    [*_, verdict] = ValidateAccuracy(max_drop=0.04, drop="relative").judge(facts)
    assert verdict.value == pytest.approx(-found.lower)
    assert verdict.bound == pytest.approx(0.02)
    assert verdict.outcome == "fail"
    assert verdict.says == (
        f"f1 0.4500, reference 0.5000: difference -0.0500, with 95% confidence at most {found.upper:.4f}; "
        "a drop of 0.0200 (4.00% of the reference) is allowed"
    )


def test_being_better_is_no_drop(tmp_path: Path) -> None:
    stage = ValidateAccuracy(max_drop=0)
    assert _failed(stage.judge(_facts(tmp_path, stage, _said(0), _said(100)))) == []


def test_a_least_value_and_a_drop_are_judged_apart(tmp_path: Path) -> None:
    facts = _facts(tmp_path, ValidateAccuracy(at_least=0.5), _said(100), _said(0))
    assert _failed(ValidateAccuracy(at_least=0.5).judge(facts)) == []
    assert _failed(ValidateAccuracy(at_least=0.51).judge(facts)) == ["f1"]
    assert _failed(ValidateAccuracy(at_least=0.5, max_drop=0.1).judge(facts)) == ["f1"]
    assert _failed(ValidateAccuracy(at_least=0.51, max_drop=0.1).judge(facts)) == ["f1", "f1"]


def test_few_rows_fail(tmp_path: Path) -> None:
    facts = _facts(tmp_path, ValidateAccuracy(max_drop=0.999), _said(0, 99), _said(0, 99), _gold(99))
    assert _failed(ValidateAccuracy(max_drop=0.999).judge(facts)) == ["rows"]
    assert _failed(ValidateAccuracy(max_drop=0.999, min_rows=99).judge(facts)) == []


def test_no_rows_fail(tmp_path: Path) -> None:
    stage = ValidateAccuracy(max_drop=0.999, at_least=0.001, min_rows=1)
    facts = _facts(tmp_path, stage, [], [], [])
    assert facts.metrics["f1"].candidate is None
    assert _failed(stage.judge(facts)) == ["rows", "answers", "f1", "f1"]


@pytest.mark.parametrize("side", ["candidate", "reference"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda said: said[:-1], "1 rows unanswered"),
        (lambda said: [*said, {"id": "x", "prediction_text": ""}], "1 answers of no row"),
        (lambda said: [*said[:-1], {**said[-1], "nan": True}], "1 answers of NaN"),
    ],
)
def test_answers_that_are_missing_surplus_or_nan_fail(tmp_path: Path, side: str, change: Any, says: str) -> None:
    stage = ValidateAccuracy(max_drop=0.999)
    sides = {"candidate": _said(0), "reference": _said(0)}
    sides[side] = change(sides[side])
    verdicts = stage.judge(_facts(tmp_path, stage, **sides))
    assert _failed(verdicts) == ["answers"]
    assert verdicts[1].says == f"{side}: {says}"


@pytest.mark.parametrize("constant", ["candidate", "reference"])
def test_a_metric_that_is_nan_fails(tmp_path: Path, constant: str) -> None:
    gold = [{"id": str(i), "sentence1": "", "sentence2": "", "score": float(i)} for i in range(COUNT)]
    sides = {side: [{"id": str(i), "cosine": i / COUNT} for i in range(COUNT)] for side in ("candidate", "reference")}
    sides[constant] = [{**one, "cosine": 0.5} for one in sides[constant]]
    stage = ValidateAccuracy(max_drop=0.999)
    facts = _facts(tmp_path, stage, **sides, gold=gold, task=SentenceSimilarity())
    assert getattr(facts.metrics["spearman"], constant) is None
    assert _failed(stage.judge(facts)) == ["spearman"]
    assert "NaN" in stage.judge(facts)[-1].says
    assert "look at the predictions of the " + constant in stage.judge(facts)[-1].says
    assert _failed(ValidateAccuracy(at_least=-0.999).judge(facts)) == (["spearman"] if constant == "candidate" else [])


def test_every_metric_of_every_task_has_its_interval(tmp_path: Path) -> None:
    tasks: dict[str, tuple[Task, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
        "text": (TextClassification(), {"text": "", "label": 1}, {"label": 1}, {"label": 0}),
        "token": (TokenClassification(), {"tokens": ["a"], "tags": ["B-X"]}, {"tags": ["B-X"]}, {"tags": ["O"]}),
    }
    for name, (task, row, right, wrong) in tasks.items():
        folder = tmp_path / name
        folder.mkdir()
        ids = [{"id": str(i)} for i in range(COUNT)]
        gold = [{**row, **one} for one in ids]
        gold[::2] = [{**one, "label": 0} if name == "text" else {**one, "tags": ["O"]} for one in gold[::2]]
        candidate = [{**(wrong if i % 5 == 0 else right), **one} for i, one in enumerate(ids)]
        facts = _facts(folder, ValidateAccuracy(max_drop=0.1), candidate, [{**right, **one} for one in ids], gold, task)
        assert set(facts.metrics) == {*task.metrics[:3], *(task.metrics if name == "token" else ())}
        for metric, found in facts.metrics.items():
            assert found.low < found.difference < found.high or (name, metric) == ("token", "precision")


def test_every_row_s_scores_are_kept(tmp_path: Path) -> None:
    _facts(tmp_path, ValidateAccuracy(max_drop=0.999), _said(1), _said(0))
    kept = jsonl.read_jsonl(tmp_path / "out" / "scores.jsonl")
    assert len(kept) == COUNT
    assert kept[0] == {
        "id": "0",
        "candidate": {"f1": 0.0, "exact_match": 0.0},
        "reference": {"f1": 1.0, "exact_match": 1.0},
    }


def test_another_metric_can_be_judged_without_measuring(tmp_path: Path) -> None:
    facts = _facts(tmp_path, ValidateAccuracy(max_drop=0.999), _said(0), _said(0))
    assert ValidateAccuracy(max_drop=0, metric="exact_match").judge(facts)[-1].check == "exact_match"
    verdict = ValidateAccuracy(max_drop=0.999, metric="HasAns_f1").judge(facts)[-1]
    assert not verdict.passed
    assert verdict.says == "no metric `HasAns_f1` was measured; there are: f1, exact_match"


def test_a_metric_the_task_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no metric `F1`; it has: f1, exact_match"):
        _facts(tmp_path, ValidateAccuracy(max_drop=0.999, metric="F1"), _said(0), _said(0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_rows": 5},
        {"max_drop": -0.1},
        {"max_drop": 1.5},
        {"max_drop": float("nan")},
        {"at_least": 85},
        {"at_least": float("nan")},
        {"max_drop": 0.1, "min_rows": 0},
        {"max_drop": 0.1, "confidence": 1},
        {"max_drop": 0.1, "drop": "percent"},
    ],
)
def test_a_gate_that_cannot_fail_or_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ValidateAccuracy(**options)


def test_only_what_judges_is_unkeyed() -> None:
    assert set(ValidateAccuracy.model_fields) - ValidateAccuracy.unkeyed == {"confidence", "cluster", "slices"}
    assert list(ValidateAccuracy.takes) == ["candidate", "reference"]


def test_the_report_has_every_metric_with_its_interval(tmp_path: Path) -> None:
    stage = ValidateAccuracy(max_drop=0.5)
    facts = _facts(tmp_path, stage, _said(40), _said(20))
    table, note = stage.details(facts)
    assert table.headings == ["metric", "candidate", "reference", "difference, 95% interval"]
    interval = f"{facts.metrics['f1'].low:.4f} to {facts.metrics['f1'].high:.4f}"
    assert [str(cell.quantity) for cell in table.rows["f1"]] == ["0.8000", "0.9000", f"-0.1000 ({interval})"]
    assert list(table.rows) == ["exact_match", "f1"] or list(table.rows) == ["f1", "exact_match"]
    assert f"{COUNT} rows" in note.text


def test_a_successor_may_drop_as_much_again_and_always_has_a_bound() -> None:
    gate = ValidateAccuracy(max_drop=0.02)
    assert gate.successor() == gate
    least = ValidateAccuracy(at_least=0.8, metric="f1").successor()
    assert (least.max_drop, least.drop, least.at_least, least.metric) == (0.01, "relative", 0.8, "f1")


def _numbers(values: list[float]) -> list[dict[str, Any]]:
    return [{"id": str(i), "value": value} for i, value in enumerate(values)]


def _measured(tmp_path: Path, candidate: list[float], reference: list[float], gold: list[float]) -> AccuracyFacts:
    rows = [{"id": str(i), "text": "", "label": value} for i, value in enumerate(gold)]
    stage = ValidateAccuracy(max_drop=0.999)
    return _facts(tmp_path, stage, _numbers(candidate), _numbers(reference), rows, TextClassification())


def test_an_error_is_worse_the_larger_it_is(tmp_path: Path) -> None:
    gold = [i / 10 for i in range(COUNT)]
    facts = _measured(tmp_path, [value + 0.3 for value in gold], [value + 0.2 for value in gold], gold)
    assert facts.metric == "r2" and facts.about.startswith("Regression")
    assert {name for name, found in facts.metrics.items() if found.better == "lower"} == {"mse", "rmse", "mae"}
    found = facts.metrics["mae"]
    assert (found.candidate, found.reference) == pytest.approx((0.3, 0.2))

    def failed(**options: Any) -> list[str]:
        return _failed(ValidateAccuracy(metric="mae", **options).judge(facts))

    worst = found.upper
    assert worst is not None and found.lower is not None and 0.08 < found.lower < 0.1 < worst < 0.12
    assert failed(max_drop=worst) == failed(max_drop=5 * worst, drop="relative") == failed(at_most=0.3) == []
    assert failed(max_drop=0.09) == failed(max_drop=0.49, drop="relative") == failed(at_most=0.29) == ["mae"]
    says = ValidateAccuracy(metric="mae", max_drop=0.05).judge(facts)[-1].says
    assert says.startswith("mae 0.3000, reference 0.2000: difference +0.1000, with 95% confidence at least +0.08")
    assert says.endswith("a rise of 0.0500 is allowed")
    # What is shifted is right in order, and so in a correlation; R2 and the errors see it.
    assert facts.metrics["spearman"].difference == 0 and (facts.metrics["r2"].difference or 0) < 0
    better = _measured(tmp_path / "better", gold, [value + 0.2 for value in gold], gold)
    assert _failed(ValidateAccuracy(metric="mse", max_drop=0).judge(better)) == []


def test_bounds_have_the_direction_of_their_metric(tmp_path: Path) -> None:
    regression, task = TextClassification(kind="regression"), TextClassification()
    assert ValidateAccuracy(metric="mse", at_least=0.5).misfits(task) == [
        "at_least: mse is an error, less is better; use `at_most`"
    ]
    assert ValidateAccuracy(metric="r2", at_most=0.5).misfits(task) == ["at_most: of r2 more is better; use `at_least`"]
    assert ValidateAccuracy(metric="mse", at_most=0.5, max_drop=0.1).misfits(regression) == []
    [says] = ValidateAccuracy(metric="maee", at_most=0.5).misfits(regression)
    assert says.startswith("metric: the task has no metric `maee` (did you mean `mae`?); it has: r2, pearson")
    [says] = ValidateAccuracy(metric="accuracy", at_least=0.5).misfits(regression)
    assert "no metric `accuracy`" in says
    with pytest.raises(ValidationError, match="at_most: name the `metric` that it bounds"):
        ValidateAccuracy(at_most=0.5)
    facts = _measured(tmp_path, [1.0, 2.0], [1.0, 2.0], [1.0, 3.0])
    stage = ValidateAccuracy(metric="mse", at_least=0.0, min_rows=1)  # judged anew, without a plan
    assert [v.says for v in stage.judge(facts) if not v.passed] == [
        "at_least: mse is an error, less is better; use `at_most`"
    ]


def test_rows_that_all_have_one_answer_are_refused(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "", "label": "good"} for i in range(COUNT)]
    said = [{"id": str(i), "label": 1, "name": "good"} for i in range(COUNT)]
    with pytest.raises(
        RecipeError, match=r"data.validation: all 200 rows have label good: no metric .*; take rows that"
    ):
        _facts(tmp_path, ValidateAccuracy(max_drop=0), said, said, rows, TextClassification())


def test_a_reference_that_always_says_the_same_proves_nothing(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "", "label": i % 2} for i in range(COUNT)]
    same = [{"id": str(i), "label": 1, "name": "good"} for i in range(COUNT)]
    good = [{"id": str(i), "label": i % 2, "name": "good"} for i in range(COUNT)]
    for folder, candidate, reference, failed in (
        ("both", same, same, ["constant"]),
        ("reference", good, same, ["constant"]),
        ("candidate", same, good, ["accuracy"]),
        ("none", good, good, []),
    ):
        (tmp_path / folder).mkdir()
        facts = _facts(
            tmp_path / folder, ValidateAccuracy(max_drop=0), candidate, reference, rows, TextClassification()
        )
        verdicts = ValidateAccuracy(max_drop=0).judge(facts)
        assert _failed(verdicts) == failed
        if failed == ["constant"]:
            assert verdicts[2].says.startswith("the reference gives label 1 to all 200 rows: comparing with it shows")


def test_counts_that_a_task_leaves_out_are_made_here(tmp_path: Path) -> None:
    class Silent(QuestionAnswering):
        """Counts nothing."""

        def score(self, rows: Any, predictions: Any) -> Any:
            return replace(super().score(rows, predictions), counts={})

    said = [*_said(0)[2:], {**_said(0)[1], "nan": True}, {"id": "x", "prediction_text": ""}]
    facts = _facts(tmp_path, ValidateAccuracy(max_drop=0.999), said, _said(0), task=Silent())
    found = {side: (count.missing, count.unknown, count.nan) for side, count in facts.counts.items()}
    assert found == {"candidate": (1, 1, 1), "reference": (0, 0, 0)}


def test_what_is_not_defined_says_why(tmp_path: Path) -> None:
    facts = _measured(tmp_path, [0.5] * COUNT, [float(i) for i in range(COUNT)], [float(i) for i in range(COUNT)])
    for options in ({"max_drop": 0.1}, {"at_least": 0.5}):
        verdict = ValidateAccuracy(metric="spearman", **options).judge(facts)[-1]
        assert not verdict.passed
        assert (
            "it is not defined where answers never vary or are missing: look at the predictions of the candidate"
            in (verdict.says)
        )


def test_sets_of_labels_have_their_own_figures(tmp_path: Path) -> None:
    names = ("toxic", "insult")
    rows = [{"id": str(i), "text": "", "label": [names[i % 2]] if i % 3 else []} for i in range(COUNT)]
    scores = {"toxic": 0.2, "insult": 0.2}
    good = [
        {"id": row["id"], "labels": row["label"], "scores": {**scores, **dict.fromkeys(row["label"], 0.9)}}
        for row in rows
    ]
    worse = [{**one, "labels": [], "scores": scores} if i < 50 else one for i, one in enumerate(good)]
    stage = ValidateAccuracy(max_drop=0.05, metric="f1:toxic")
    facts = _facts(tmp_path, stage, worse, good, rows, TextClassification(kind="multi"))
    assert facts.metric == "f1_micro"
    expected = {"f1_micro", "f1_macro", "exact_match", "mAP", "f1:toxic", "f1:insult"}
    assert set(facts.metrics) == expected
    assert all(found.low < found.difference < found.high < 0 for found in facts.metrics.values())
    assert _failed(stage.judge(facts)) == ["f1:toxic"]
    assert _failed(ValidateAccuracy(max_drop=0.5).judge(facts)) == []
