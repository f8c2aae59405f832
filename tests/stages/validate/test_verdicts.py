"""Three verdicts by bounds: passed, failed, or the rows are too few; and what each of them says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime import tango
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.stages.validate._accuracy_facts import AccuracyFacts, MetricFacts, SlicedFacts, SliceFacts
from cpu_pipeline.stages.validate._slices import Slices
from cpu_pipeline.stages.validate._verdicts import Difference, judge_slices, kept_by_holm
from cpu_pipeline.stages.validate.accuracy import ValidateAccuracy
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification

Z = 1.6448536
QA = QuestionAnswering()


def _facts(gained: int, lost: int, rows: int, reference: float = 0.9, better: str = "higher") -> AccuracyFacts:
    difference = (gained - lost) / rows
    found = MetricFacts(
        candidate=reference + difference,
        reference=reference,
        difference=difference,
        low=tango.lower(gained, lost, rows, 1.96),
        high=tango.upper(gained, lost, rows, 1.96),
        better=better,  # type: ignore[arg-type]  # a test's text
        lower=tango.lower(gained, lost, rows, Z),
        upper=tango.upper(gained, lost, rows, Z),
        method="tango",
        deviation=((gained + lost) / rows - difference**2) ** 0.5,
        gained=gained,
        lost=lost,
    )
    counts = {"missing": 0, "unknown": 0, "nan": 0}
    return AccuracyFacts.model_validate(
        {"rows": rows, "metric": "accuracy", "confidence": 0.95, "metrics": {"accuracy": found},
         "counts": {"candidate": counts, "reference": counts}}
    )  # fmt: skip


def _judged(facts: AccuracyFacts, **options: Any) -> Verdict:
    return ValidateAccuracy(**options).judge(facts)[-1]


def test_it_passes_when_the_lower_bound_lies_above_the_allowed_drop() -> None:
    facts = _facts(10, 12, 872)  # at least -0.01175
    verdict = _judged(facts, max_drop=0.0118)
    assert (verdict.passed, verdict.outcome, verdict.warning) == (True, "pass", False)
    assert verdict.value == pytest.approx(0.01175, abs=5e-6) and verdict.bound == 0.0118
    assert verdict.says == (
        "accuracy 0.8977, reference 0.9000: difference -0.0023, with 95% confidence at least -0.0118; "
        "a drop of 0.0118 is allowed"
    )


def test_it_is_inconclusive_in_between_and_says_how_many_rows_would_decide() -> None:
    verdict = _judged(_facts(10, 12, 872), max_drop=0.0117)
    assert (verdict.passed, verdict.outcome) == (False, "inconclusive")
    assert verdict.says.startswith("inconclusive: accuracy 0.8977, reference 0.9000: difference -0.0023, with 95%")
    # (1.645 + 0.842)² · 0.0252 / (0.0117 - 0.0023)²
    assert verdict.says.endswith("; about 1,800 rows would decide it (872 now)")


def test_it_fails_when_even_the_upper_bound_or_the_estimate_is_beyond() -> None:
    clear = _judged(_facts(3, 60, 872), max_drop=0.01)
    assert (clear.passed, clear.outcome) == (False, "fail")
    assert "with 95% confidence at most -0.0" in clear.says
    estimate = _facts(3, 14, 872)  # -0.0126, at least -0.02164, at most -0.0052
    verdict = _judged(estimate, max_drop=0.01)
    assert (verdict.passed, verdict.outcome) == (False, "fail")
    assert verdict.says.endswith("the estimate itself is beyond that")
    warned = _judged(estimate, max_drop=0.01, on_inconclusive="warn")
    assert (warned.passed, warned.outcome, warned.warning) == (True, "inconclusive", True)
    assert not _judged(_facts(3, 60, 872), max_drop=0.01, on_inconclusive="warn").passed


def test_rows_of_which_none_flipped_still_have_a_bound() -> None:
    assert _judged(_facts(0, 0, 872), max_drop=0.0031).outcome == "pass"
    verdict = _judged(_facts(0, 0, 872), max_drop=0.003)
    assert verdict.outcome == "inconclusive" and verdict.says.endswith("about 900 rows would decide it (872 now)")


def test_of_an_error_less_is_better() -> None:
    facts = _facts(12, 10, 872, better="lower")  # it rose by 0.0023, at most by 0.01175
    facts = facts.model_copy(update={"metric": "mse", "metrics": {"mse": facts.metrics["accuracy"]}})
    verdict = _judged(facts, max_drop=0.0118)
    assert verdict.passed and "difference +0.0023, with 95% confidence at most +0.0118; a rise of" in verdict.says
    assert _judged(facts, max_drop=0.01).outcome == "inconclusive"
    worse = _facts(60, 3, 872, better="lower")
    worse = worse.model_copy(update={"metric": "mse", "metrics": {"mse": worse.metrics["accuracy"]}})
    failed = _judged(worse, max_drop=0.01)
    assert failed.outcome == "fail" and "with 95% confidence at least +0.0" in failed.says


@pytest.mark.parametrize(("bound", "drop"), [("mlperf-99", 0.009), ("mlperf-99.9", 0.0009), ("point-1", 0.01)])
def test_presets_are_known_bounds(bound: str, drop: float) -> None:
    assert _judged(_facts(0, 0, 10_000), bound=bound).bound == pytest.approx(drop)


def test_a_published_value_has_its_source() -> None:
    stage = ValidateAccuracy(at_least=0.91, source="the model card")
    [*_, verdict] = stage.judge(_facts(10, 12, 872))
    assert not verdict.passed
    assert verdict.says == "accuracy 0.8977, at least 0.9100 asked (published: the model card)"


def test_what_is_suspiciously_better_passes_with_a_warning() -> None:
    verdicts = ValidateAccuracy(max_drop=0.01).judge(_facts(60, 3, 872))
    [warning] = [verdict for verdict in verdicts if verdict.warning]
    assert warning.passed and warning.check == "better"
    assert warning.says.startswith("suspiciously better than the reference: accuracy 0.9654, reference 0.9000")
    assert not any(verdict.warning for verdict in ValidateAccuracy(max_drop=0.01).judge(_facts(14, 3, 872)))


@pytest.mark.parametrize(
    "options",
    [
        {"bound": "mlperf-98"},
        {"bound": "point-1", "max_drop": 0.01},
        {"max_drop": 0.01, "source": "a paper"},
        {"at_least": 0.5, "on_inconclusive": "more"},
        {"max_drop": 0.01, "at_least": 0.5, "on_inconclusive": "more"},
        {"at_least": 0.5, "slices": {"column": "language"}},
        {"max_drop": 0.01, "slices": {"by": "size"}},
        {"max_drop": 0.01, "slices": [{"by": "length"}, {"by": "length"}]},
        {"max_drop": 0.01, "confidence": 0.4},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ValidateAccuracy(**options)


def test_too_few_rows_are_told_beforehand() -> None:
    def told(stage: ValidateAccuracy, rows: int | None, task: Any = QA) -> list[str]:
        return list(stage.cautions(task, None, rows))

    gate = ValidateAccuracy(max_drop=0.01)
    [says] = told(gate, 420)
    assert says.startswith(
        "420 rows cannot show that f1 falls by no more than 0.01: where 2.0% of the answers flip, 1,326 rows"
    )
    assert "so many are enough where at most 0." in says
    assert told(gate, 1326) == []
    assert told(ValidateAccuracy(max_drop=0.02), 420) == []
    [says] = told(gate, None)
    assert says.startswith("100 rows (min_rows) cannot show") and "so few are never enough" in says
    assert told(ValidateAccuracy(max_drop=0.01, min_rows=1400), None) == []
    assert told(ValidateAccuracy(max_drop=0.002, expected_flips=0.001), 11_873) == []
    assert told(ValidateAccuracy(bound="mlperf-99.9"), 11_873) != []
    assert told(gate, 20, SentenceSimilarity()) == [], "the table is of shares of right answers"
    assert told(gate, 20, TextClassification()) != []


def test_holm_keeps_what_holds_at_its_own_share_of_the_error() -> None:
    assert kept_by_holm([]) == []
    assert kept_by_holm([[True, True, True]] * 3) == [True, True, True]
    # One holds with a third of the error, the next with half of it, the last with all.
    assert kept_by_holm([[True, False, False], [True, True, True], [True, True, False]]) == [True, True, True]
    assert kept_by_holm([[True, False, False], [True, True, True], [True, False, False]]) == [False, True, False]
    assert kept_by_holm([[True, True, False], [True, True, False]]) == [True, True]
    assert kept_by_holm([[True, False], [True, False]]) == [False, False], "neither holds with half of the error"


def _slice(rows: int, gained: int, lost: int, levels: int) -> SliceFacts:
    from statistics import NormalDist

    zs = [NormalDist().inv_cdf(1 - 0.05 / count) for count in range(1, levels + 1)]
    return SliceFacts(
        rows=rows,
        candidate=0.9 + (gained - lost) / rows,
        reference=0.9,
        difference=(gained - lost) / rows,
        deviation=((gained + lost) / rows) ** 0.5,
        lower=[tango.lower(gained, lost, rows, z) for z in zs],
        upper=[tango.upper(gained, lost, rows, z) for z in zs],
    )


def test_slices_are_judged_together_and_the_worst_is_named() -> None:
    found = SlicedFacts(
        metric="accuracy",
        slices={
            "de": _slice(300, 2, 40, 4),
            "en": _slice(900, 5, 6, 4),
            "fr": _slice(300, 4, 7, 4),
            "it": _slice(9, 0, 0, 4),
        },
    )
    stage = ValidateAccuracy(max_drop=0.03, slices=Slices(column="language", min_rows=10))
    judged = judge_slices(found, stage.divisions[0], 0.03, relative=False, by_estimate=True)
    assert [(one.name, one.outcome) for one in judged] == [
        ("de", "fail"), ("fr", "inconclusive"), ("it", "inconclusive"), ("en", "pass")
    ]  # fmt: skip
    [verdict] = stage.judge_sliced({"language": found})
    assert (verdict.check, verdict.outcome, verdict.passed) == ("accuracy by language", "fail", False)
    assert verdict.says.startswith("worst of 4 slices by language: de (300 rows), accuracy 0.7733, reference 0.9000")
    assert verdict.says.endswith("(of all slices: 1 pass; 1 fail; 2 inconclusive)")
    own = {"de": {"max_drop": 0.2}, "it": {"max_drop": 0.9, "min_rows": 5}, "fr": {"max_drop": 0.05}}
    lenient = ValidateAccuracy(max_drop=0.03, slices={"column": "language", "each": own})
    assert [verdict.outcome for verdict in lenient.judge_sliced({"language": found})] == ["pass"]


def test_rows_are_divided_by_column_length_and_answer() -> None:
    task = QuestionAnswering(version=2)
    rows = [
        {"id": str(i), "question": "?" * (1 + i), "context": "x", "answers": {"text": ["x"] * (i % 2)}}
        for i in range(9)
    ]
    columns = {str(i): {"id": str(i), "language": "de" if i < 4 else None} for i in range(9)}
    divided = Slices(column="language").divide(rows, columns, task)
    assert divided == {"(none)": [4, 5, 6, 7, 8], "de": [0, 1, 2, 3]}
    assert Slices(by="length").divide(rows, {}, task) == {"short": [0, 1, 2], "middle": [3, 4, 5], "long": [6, 7, 8]}
    assert Slices(by="answer").divide(rows, {}, task) == {"HasAns": [1, 3, 5, 7], "NoAns": [0, 2, 4, 6, 8]}
    with pytest.raises(RecipeError, match=r"SQuAD 2\.0"):
        Slices(by="answer").divide(rows, {}, QuestionAnswering())
    with pytest.raises(RecipeError, match="no row is of the slice 'fr'"):
        Slices(column="language", each={"fr": {"max_drop": 0.1}}).divide(rows, columns, task)
    with pytest.raises(RecipeError, match="has 60 values, 50 at most"):
        many = [{"id": str(i), "text": str(i)} for i in range(60)]
        Slices(column="text").divide(many, {}, TextClassification())


def test_a_difference_without_bounds_is_no_difference() -> None:
    assert Difference.of(0.1, None, 0.2, "higher", None) is None
    turned = Difference.of(0.1, -0.1, 0.2, "lower", None)
    assert turned is not None and (turned.value, turned.lower, turned.upper) == (-0.1, -0.2, 0.1)


def test_a_plain_verdict_has_the_outcome_of_what_passed(tmp_path: Path) -> None:
    assert (Verdict("x", True, "").outcome, Verdict("x", False, "").outcome) == ("pass", "fail")
