"""Which column is which, by name and by content."""

from __future__ import annotations

from typing import Any

import pytest

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.recipe.scaffold.columns import NAMES, match, require, task_of


def test_every_task_has_its_columns() -> None:
    assert sorted(NAMES) == tasks.names()
    for name, columns in NAMES.items():
        assert columns.keys() == tasks.get(name).columns.keys()


@pytest.mark.parametrize(
    ("task", "row", "found"),
    [
        ("text-classification", {"Review": "good", "Sentiment": "pos"}, {"text": "Review", "label": "Sentiment"}),
        ("text-classification", {"premise": "a", "hypothesis": "b", "label": "0"},
         {"text": "premise", "text_pair": "hypothesis", "label": "label"}),
        ("text-classification", {"id": "1", "short": "a", "what it says": "quite a long text", "verdict": "POS"},
         {"text": "what it says", "label": "verdict"}),
        ("text-classification", {"words": "a text", "number": "1"}, {"text": "words", "label": "number"}),
        ("token-classification", {"w": '["a", "b"]', "t": '["O", "B-PER"]'}, {"tokens": "w", "tags": "t"}),
        ("token-classification", {"words": ["a"], "ner_tags": [0]}, {"tokens": "words", "tags": "ner_tags"}),
        ("question-answering", {"q": "who is it?", "p": "it is I, no one", "a": {"text": ["I"], "answer_start": [6]}},
         {"question": "q", "context": "p", "answers": "a"}),
        ("sentence-similarity", {"one": "a text", "two": "a text, too", "points": "4.5"},
         {"sentence1": "one", "sentence2": "two", "score": "points"}),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_and_by_content(task: str, row: dict[str, Any], found: dict[str, str]) -> None:
    assert match(task, list(row), [row], ["neg", "pos"] if task != "token-classification" else ["O", "B-PER"]) == found


def test_what_the_user_says_wins() -> None:
    row = {"text": "a", "body": "b", "label": "pos"}
    assert match("text-classification", list(row), [row], ["pos"], {"text": "body"})["text"] == "body"


def test_what_is_not_found_is_asked_for() -> None:
    with pytest.raises(RecipeError, match=r"rows.csv: which column is `label` .* has a, b; .* `--column label=a`"):
        require("text-classification", {"text": "b"}, ["a", "b"], "rows.csv")
    require("text-classification", {"text": "b", "label": "a"}, ["a", "b"], "rows.csv")


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"tokens": ["a"], "tags": ["O"]}, "token-classification"),
        ({"question": "q", "context": "c", "answers": {}}, "question-answering"),
        ({"sentence1": "a", "sentence2": "b", "score": "1.5"}, "sentence-similarity"),
        ({"sentence1": "a", "sentence2": "b", "label": "entailment"}, "text-classification"),
        ({"review": "a", "sentiment": "b"}, "text-classification"),
        ({"a": "1", "b": "2"}, None),
    ],
)
def test_rows_tell_a_task(row: dict[str, Any], task: str | None) -> None:
    assert task_of(list(row), [row]) == task
