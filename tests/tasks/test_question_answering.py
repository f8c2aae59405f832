"""Windows, answers and scores of question answering, against figures worked out by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from pydantic import ValidationError
from tokenizers import Tokenizer

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks.question_answering import QuestionAnswering

ONE, TWO = QuestionAnswering(version=1), QuestionAnswering(version=2)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp("model") / request.param)


def _row(*golds: str, name: str = "q", context: str = "") -> dict[str, Any]:
    answers = {"text": list(golds), "answer_start": [0] * len(golds)}
    return {"id": name, "question": "?", "context": context, "answers": answers}


def _score(task: QuestionAnswering, predicted: str, *golds: str) -> tuple[float, float]:
    found = task.score([_row(*golds)], {"q": {"id": "q", "prediction_text": predicted}}).metrics
    return found["exact_match"], found["f1"]


@pytest.mark.parametrize("task", [ONE, TWO])
@pytest.mark.parametrize(
    ("predicted", "golds", "exact", "f1"),
    [
        ("The Eiffel Tower", ["eiffel tower"], 1, 1),  # articles and case
        ("an apple a day", ["Apple day"], 1, 1),
        ("theatre", ["atre"], 0, 0),  # an article is a whole word
        ("Saint-Denis!", ["saintdenis"], 1, 1),  # ASCII punctuation vanishes, it does not split
        ("1,000.5", ["10005"], 1, 1),
        ("\u201cParis\u201d", ["Paris"], 0, 0),  # typographic quotes stay
        ("\u0130zmir", ["i\u0307zmir"], 1, 1),  # Unicode lower case: one capital becomes two characters
        ("STRASSE", ["stra\u00dfe"], 0, 0),  # lower case, not case folding
        ("red\u00a0house", ["red house"], 1, 1),  # any Unicode space
        ("\u00e9a b", ["\u00e9a b"], 1, 1),
        ("in the red house", ["red house", "house"], 0, 0.8),  # 2*2/(3+2), the better gold
        ("house", ["red house", "house"], 1, 1),
        ("red red house", ["red house house"], 0, 2 / 3),  # bags: red 1 + house 1 in common, 4/6
        ("blue", ["red"], 0, 0),
        ("", ["red"], 0, 0),
    ],
)
def test_answers_are_scored_as_squad_does(
    task: QuestionAnswering, predicted: str, golds: list[str], exact: float, f1: float
) -> None:
    assert _score(task, predicted, *golds) == pytest.approx((exact, f1))


def test_versions_differ_where_nothing_is_left() -> None:
    # Both sides normalise to nothing: 1.1 has no common word to count, 2.0 calls it a match.
    assert _score(ONE, "a", "The") == (1, 0)
    assert _score(TWO, "a", "The") == (1, 1)
    # 2.0 drops gold answers that normalise to nothing, as long as another is left.
    assert _score(TWO, "", "the", "red") == (0, 0)
    assert _score(ONE, "", "the", "red") == (1, 0)


def test_questions_without_an_answer() -> None:
    assert _score(TWO, "") == (1, 1)
    assert _score(TWO, "the") == (1, 1)
    assert _score(TWO, "red") == (0, 0)


def test_version_2_splits_by_having_an_answer_and_counts_what_is_missing() -> None:
    rows = [_row("red house", name="a"), _row("blue", name="b"), _row(name="c"), _row(name="d"), _row("x", name="e")]
    said = {"a": "house", "b": "blue", "c": "", "d": "green", "other": "?"}
    found = TWO.score(rows, {name: {"id": name, "prediction_text": text} for name, text in said.items()})
    assert found.metrics == pytest.approx(
        {
            "f1": (2 / 3 + 1 + 1 + 0 + 0) / 5,
            "exact_match": 2 / 5,
            "HasAns_f1": (2 / 3 + 1 + 0) / 3,
            "HasAns_exact": 1 / 3,
            "NoAns_f1": 1 / 2,
            "NoAns_exact": 1 / 2,
        }
    )
    assert found.counts == {"rows": 5, "missing": 1, "unknown": 1, "nan": 0, "no_answer": 2}
    assert [row["id"] for row in found.rows] == list("abcde")
    assert "HasAns_f1" not in found.rows[2]


def test_version_1_counts_missing_ids_as_wrong() -> None:
    found = ONE.score([_row("red", name="a"), _row("red", name="b")], {"a": {"id": "a", "prediction_text": "red"}})
    assert found.metrics == {"f1": 0.5, "exact_match": 0.5}
    assert found.counts["missing"] == 1


def test_a_missing_id_is_wrong_even_without_an_answer() -> None:
    assert TWO.score([_row()], {}).metrics["f1"] == 0


def test_nan_is_wrong_and_counted_even_without_an_answer() -> None:
    found = TWO.score([_row()], {"q": {"id": "q", "prediction_text": "", "nan": True}})
    assert (found.metrics["f1"], found.counts["nan"]) == (0, 1)


def test_no_rows_score_nan() -> None:
    assert math.isnan(ONE.score([], {}).metrics["f1"])


def test_a_row_without_answers_cannot_be_scored() -> None:
    with pytest.raises(RecipeError, match="row q: no `answers`"):
        ONE.score([{"id": "q", "question": "?", "context": ""}], {})


def test_rows_are_checked() -> None:
    raw = {
        "id": 7,
        "title": "t",
        "question": "who",
        "context": "anna",
        "answers": {"text": ["anna"], "answer_start": [0]},
    }
    assert ONE.row(raw) == {"id": "7", "question": "who", "context": "anna", "answers": raw["answers"]}
    assert ONE.row({**raw, "answers": [{"text": "anna", "answer_start": 0}]}) == ONE.row(raw)
    assert "answers" not in ONE.row({**raw, "answers": None})
    none = {"text": [], "answer_start": []}
    assert TWO.row({**raw, "answers": none})["answers"] == none
    for wrong, says in [
        ({"question": None}, "`question` is missing"),
        ({"context": 3}, "`context` is int"),
        ({"answers": none}, "version: 2"),
        ({"answers": "anna"}, "`answers` must be"),
        ({"answers": {"text": ["a"], "answer_start": []}}, "one character number for each"),
        ({"answers": {"text": ["a"], "answer_start": ["0"]}}, "one character number for each"),
        ({"answers": {"text": [None], "answer_start": [0]}}, "list of texts"),
    ]:
        with pytest.raises(ValueError, match=says):
            ONE.row({**raw, **wrong})


def test_options_are_checked_and_the_squad_version_is_not_the_code_version() -> None:
    assert ONE.squad_version == 1
    assert TWO.squad_version == ONE.version == TWO.version == QuestionAnswering.version == 2
    assert TWO.model_dump()["version"] == 2
    with pytest.raises(ValidationError, match="more than half"):
        QuestionAnswering(max_seq_length=64, doc_stride=33)


WORDS = ["anna", "found", "red", "bridge", "in", "paris", "and", "boris", "won", "old", "tower", "on", "lima"]


def _windows(model: Path, row: dict[str, Any], **options: Any) -> list[Feature]:
    return QuestionAnswering(**options).encode([row], model)


def test_windows_cover_the_passage_and_overlap_by_the_stride(model: Path) -> None:
    context = " ".join(WORDS * 8)
    features = _windows(model, {"question": "who won", "context": context}, max_seq_length=64, doc_stride=16)
    assert len(features) > 2
    seen = [[tuple(span) for span in f.extra.tolist() if span[0] >= 0] for f in features]
    for before, after in pairwise(seen):
        assert before[-16:] == after[:16]
    assert {f.row for f in features} == {0}
    assert all(len(f.inputs["input_ids"]) == 64 for f in features[:-1])
    assert all(len(set(map(len, f.inputs.values()))) == 1 for f in features)
    covered = {i for spans in seen for first, last in spans for i in range(first, last)}
    assert covered == {i for i, c in enumerate(context) if c != " "}


def test_offsets_are_characters_of_the_passage_and_nothing_else(model: Path) -> None:
    context = "caf\u00e9 \U0001f600 anna"
    [feature] = _windows(model, {"question": "anna who", "context": context})
    spans = [span for span in feature.extra.tolist() if span[0] >= 0]
    assert context[spans[-1][0] : spans[-1][1]] in ("anna", "a")
    assert len(feature.extra) == len(feature.inputs["input_ids"])
    assert feature.extra[0].tolist() == [-1, -1]


def test_token_types_tell_the_question_from_the_passage(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert")
    for feature in _windows(
        model, {"question": "who won", "context": " ".join(WORDS * 8)}, max_seq_length=32, doc_stride=8
    ):
        types = feature.inputs["token_type_ids"]
        passage = feature.extra[:, 0] >= 0
        assert [t for t, p in zip(types, passage, strict=True) if p] == [1] * int(passage.sum())
        assert types[:4] == [0, 0, 0, 0]  # [CLS] who won [SEP]


@pytest.mark.parametrize("context", ["anna won", " ".join(WORDS * 20), ""])
def test_a_long_question_is_cut_to_a_quarter(model: Path, context: str) -> None:
    row = {"question": "  " + "who found old bridge? unknownword " * 100, "context": context}
    features = _windows(model, row, max_seq_length=64, doc_stride=32)
    for feature in features:
        assert len(feature.inputs["input_ids"]) <= 64
        kept = tuple(span for span in feature.extra.tolist() if span[0] >= 0)
        assert 0 < len(feature.inputs["input_ids"]) - len(kept) <= 16 + 4
    if not context:
        [prediction] = QuestionAnswering().decode([{"id": "q", **row}], features, _logits(features), model)
        assert prediction["prediction_text"] == ""


def test_an_ordinary_question_is_not_cut(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert")
    [feature] = _windows(model, {"question": " who won ", "context": "anna"})
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert feature.inputs["input_ids"] == tokenizer.encode("who won", "anna").ids


def test_the_tokenizer_file_s_own_truncation_and_padding_do_not_count(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(model / "tokenizer.json"))
    [feature] = _windows(model, {"question": "who won", "context": " ".join(WORDS)})
    assert len(feature.inputs["input_ids"]) == 2 + 3 + len(WORDS)
    assert set(feature.inputs["attention_mask"]) == {1}


def test_more_tokens_than_positions_are_refused(model: Path) -> None:
    assert _windows(model, {"question": "who", "context": "anna"}, max_seq_length=512)
    with pytest.raises(RecipeError, match="max_seq_length is 513, but the model has 512 positions"):
        _windows(model, {"question": "who", "context": "anna"}, max_seq_length=513)


def _logits(features: list[Feature], seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {name: rng.normal(size=len(f.extra)).astype(np.float32) for name in ("start_logits", "end_logits")}
        for f in features
    ]


def _feature(*spans: tuple[int, int]) -> Feature:
    extra = np.array([(-1, -1), *spans], dtype=np.int32)
    return Feature(0, {"input_ids": [0] * len(extra)}, extra)


def _answer(start: list[float], end: list[float], task: QuestionAnswering = ONE) -> dict[str, Any]:
    """Decode one window: a first token of no text, then the words of `aa bb cc dd`."""
    feature = _feature((0, 2), (3, 5), (6, 8), (9, 11))
    answers = [{"start_logits": np.float32(start), "end_logits": np.float32(end)}]
    [prediction] = task.decode([{"id": "q", "context": "aa bb cc dd"}], [feature], answers, Path())
    return dict(prediction)


def test_the_best_pair_is_chosen() -> None:
    assert _answer([9, 1, 5, 2, 0], [9, 0, 1, 4, 0])["prediction_text"] == "bb cc"


def test_an_end_before_its_start_is_no_answer() -> None:
    # Start at cc and end at bb would make 11.5; of what is possible, cc alone makes 6.5, and aa bb 6.
    assert _answer([0, 0, 0, 5.5, 0], [0, 0, 6, 1, 0])["prediction_text"] == "cc"
    assert _answer([0, 1, 0, 5.5, 0], [0, 0, 6, 1, 0])["prediction_text"] == "aa bb"


def test_an_end_before_its_start_is_no_answer_even_within_one_character() -> None:
    # A byte-level tokenizer gives every byte of a character that character's span.
    answers = [{"start_logits": np.float32([0, 0, 5]), "end_logits": np.float32([0, 5, 0])}]
    [prediction] = ONE.decode([{"id": "q", "context": "aa"}], [_feature((0, 2), (0, 2))], answers, Path())
    assert prediction["score"] == 5


def test_answers_are_no_longer_than_allowed() -> None:
    task = QuestionAnswering(max_answer_length=2)
    assert _answer([0, 5, 0, 3, 0], [0, 0, 0, 0, 5], task)["prediction_text"] == "cc dd"


def test_equal_scores_go_to_the_earliest() -> None:
    assert _answer([0, 0, 0, 0, 0], [0, 0, 0, 0, 0])["prediction_text"] == "aa"
    feature, other = _feature((0, 2)), _feature((3, 5))
    answers = [{"start_logits": np.float32([0, 1]), "end_logits": np.float32([0, 1])}] * 2
    [prediction] = ONE.decode([{"id": "q", "context": "aa bb"}], [feature, other], answers, Path())
    assert prediction["prediction_text"] == "aa"


def test_only_the_n_best_of_a_window_are_combined() -> None:
    # Of starts only the first token (of no text) and bb are looked at, though aa makes the only pair with the end.
    start, end = [9, 1, 5, 0, 0], [9, 6, 0, 0, 0]
    assert _answer(start, end)["prediction_text"] == "aa"
    assert _answer(start, end, QuestionAnswering(n_best=2))["prediction_text"] == ""


def test_no_answer_wins_by_more_than_the_threshold() -> None:
    start, end = [3, 0, 2, 0, 0], [2, 0, 2, 0, 0]  # 5 for none, 4 for bb
    assert _answer(start, end, ONE)["prediction_text"] == "bb"
    assert _answer(start, end, TWO) == {"id": "q", "prediction_text": "", "null_score_diff": 1.0}
    at_one = QuestionAnswering(version=2, null_score_diff_threshold=1.0)
    assert _answer(start, end, at_one)["prediction_text"] == "bb"


def test_the_least_null_score_of_all_windows_counts() -> None:
    sure, unsure = [{"start_logits": np.float32(x), "end_logits": np.float32(x)} for x in ([9, 2], [1, 0])]
    features = [_feature((0, 2)), _feature((3, 5))]
    [prediction] = TWO.decode([{"id": "q", "context": "aa bb"}], features, [sure, unsure], Path())
    assert prediction["prediction_text"] == "aa"  # 4, where no answer has 2 in the second window


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_marked(bad: float) -> None:
    assert _answer([0, 1, 0, 0, 0], [0, 1, 0, bad, 0]) == {"id": "q", "prediction_text": "", "nan": True}


def test_decoding_equals_trying_every_pair(tmp_path: Path) -> None:
    model = make("bert", tmp_path / "bert")
    rows = [{"id": str(i), "question": "who won", "context": " ".join(WORDS[i:] * 6)} for i in range(6)]
    task = QuestionAnswering(
        version=2, max_seq_length=32, doc_stride=8, n_best=5, max_answer_length=4, null_score_diff_threshold=-6
    )
    features = task.encode(rows, model)
    answered = set()
    for seed in range(5):
        outputs = _logits(features, seed)
        texts = [p["prediction_text"] for p in task.decode(rows, features, outputs, model)]
        assert texts == [_slowly(task, i, row["context"], features, outputs) for i, row in enumerate(rows)]
        answered |= {bool(text) for text in texts}
    assert answered == {False, True}


def _slowly(task: QuestionAnswering, number: int, context: str, features: list[Feature], outputs: list[Any]) -> str:
    null, best, text = math.inf, -math.inf, ""
    for feature, answer in zip(features, outputs, strict=True):
        if feature.row != number:
            continue
        start, end = answer["start_logits"].tolist(), answer["end_logits"].tolist()
        null = min(null, start[0] + end[0])
        for s in sorted(range(len(start)), key=lambda i: -start[i])[: task.n_best]:
            for e in sorted(range(len(end)), key=lambda i: -end[i])[: task.n_best]:
                both = feature.extra[s][0] >= 0 and feature.extra[e][0] >= 0
                if both and s <= e < s + task.max_answer_length and start[s] + end[e] > best:
                    best, text = start[s] + end[e], context[feature.extra[s][0] : feature.extra[e][1]]
    return "" if null - best > task.null_score_diff_threshold else text


def test_official_files_and_json_lines_are_read(tmp_path: Path) -> None:
    answer = {"text": "Anna", "answer_start": 0}
    qas = [
        {"id": "a", "question": "who", "answers": [answer], "is_impossible": False},
        {"id": "b", "question": "why", "answers": [], "is_impossible": True, "plausible_answers": [answer]},
    ]
    whole = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Anna won", "qas": qas}]}]}
    official = tmp_path / "dev.json"
    official.write_text(json.dumps(whole, indent=1))
    rows = TWO.read_references(official)
    assert [row["answers"]["text"] for row in rows] == [["Anna"], []]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert TWO.read_references(lines) == rows
    with pytest.raises(RecipeError, match=r"dev\.json: row b: .*version: 2"):
        ONE.read_references(official)

    texts = tmp_path / "predictions.json"
    texts.write_text(json.dumps({"a": "anna", "b": ""}, indent=1))
    said = tmp_path / "predictions.jsonl"
    said.write_text('{"id": "a", "prediction_text": "anna"}\n{"id": "b", "answer": ""}\n')
    for file in (texts, said):
        assert TWO.score(rows, TWO.read_predictions(file)).metrics["f1"] == 1
    said.write_text('{"id": "a", "prediction_text": "anna"}\n')
    assert list(TWO.read_predictions(said)) == ["a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 3}', "a: the answer is int"),
        ('{"id": "a", "text": "x"}\n{"id": "b"}\n', "a: no `prediction_text`"),
        ('{"prediction_text": "x"}\n{"id": "b"}\n', "entry 1 has no `id`"),
        ('{"id": "b", "answer": ""}\n{"id": "b", "answer": ""}\n', "entry 2: the id 'b' is there twice"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_bad_predictions_are_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p").write_text(text)
    with pytest.raises(RecipeError, match=says):
        ONE.read_predictions(tmp_path / "p")


def test_bad_references_are_named(tmp_path: Path) -> None:
    (tmp_path / "r").write_text('{"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]}')
    with pytest.raises(RecipeError, match="not SQuAD's"):
        ONE.read_references(tmp_path / "r")
