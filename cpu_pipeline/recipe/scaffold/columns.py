"""Which column of the rows is which of the task's: by name first, then by what the cells hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import RecipeError

Rows = Sequence[Mapping[str, Any]]

NAMES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "question-answering": {
        "question": ("question", "query"),
        "context": ("context", "passage", "paragraph"),
        "answers": ("answers", "answer"),
    },
    "text-classification": {
        "text": (
            "text", "sentence", "content", "review", "review_text", "tweet", "comment", "message", "utterance", "body",
            "sentence1", "premise", "question1", "question",
        ),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
        "label": ("label", "labels", "target", "class", "category", "sentiment", "intent", "score", "rating", "stars"),
    },
    "token-classification": {"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "pos_tags", "labels")},
    "image-classification": {
        "image": ("image", "img", "picture", "file_name", "path", "pixel_values"),
        "label": ("label", "labels", "fine_label", "target", "class"),
    },
    "audio-classification": {
        "audio": ("audio", "speech", "file", "file_name", "path"),
        "label": ("label", "labels", "target", "class"),
    },
    "sentence-similarity": {
        "sentence1": ("sentence1", "text1", "sentence_A", "premise", "question1"),
        "sentence2": ("sentence2", "text2", "sentence_B", "hypothesis", "question2"),
        "score": ("score", "similarity_score", "similarity", "relatedness_score", "label"),
    },
}  # fmt: skip
"""Task -> column -> its usual names in data sets, most usual first."""


def match(
    task: str, columns: Sequence[str], rows: Rows, labels: Sequence[str] = (), given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Match the columns of a task with those of the data.

    Args:
        task: the task.
        columns: the columns of the data.
        rows: some rows.
        labels: the labels of the model, where it has any.
        given: what the user says.

    Returns:
        Column of the task -> column of the data, of those that were found.
    """
    found = dict(given or {})
    usual = NAMES.get(task, {})
    for column, names in usual.items():
        if column not in found and (name := _named(names, columns, found.values())):
            found[column] = name
    for column in usual:
        free = [name for name in columns if name not in found.values() and name.lower() not in ("id", "idx", "index")]
        if column not in found and column in LOOKS and column != "text_pair":
            fits = [name for name in free if _looks(LOOKS[column], name, rows, labels)]
            if fits:
                found[column] = max(fits, key=lambda name: _length(name, rows)) if column in WORDY else fits[0]
    return found


def require(task: str, found: Mapping[str, str], columns: Sequence[str], where: str) -> None:
    """Check that every column that the task needs was found, and the one with the right answers.

    Raises:
        RecipeError: names one that was not, and what there is.
    """
    known = tasks.get(task)
    for column, needed in known.columns.items():
        if (needed or column == known.gold) and column not in found:
            raise RecipeError(
                f"{where}: which column is `{column}` of {task}? It has {', '.join(columns)}; "
                f"say it with `--column {column}={columns[0] if columns else 'NAME'}`"
            )


def task_of(columns: Sequence[str], rows: Rows) -> str | None:
    """Name the one task whose columns all are in the data by their usual names; None where that is not one."""
    names = {name.lower() for name in columns}
    for task in ("question-answering", "token-classification", "sentence-similarity", "text-classification"):
        usual = NAMES[task]
        needed = [column for column in usual if column != "text_pair"]
        if all(any(name.lower() in names for name in usual[column]) for column in needed):
            if task == "sentence-similarity" and not _looks(_number, match(task, columns, rows)["score"], rows, ()):
                continue
            return task
    return None


def _named(names: Sequence[str], columns: Sequence[str], taken: Any) -> str | None:
    lower = {column.strip().lower(): column for column in reversed(columns) if column not in set(taken)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)


def _cell(value: Any) -> Any:
    """Read a cell of a CSV that holds a list, an object or a number."""
    if isinstance(value, str) and value[:1] in "[{0123456789-.":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _looks(like: Callable[[Any, Sequence[str]], bool], name: str, rows: Rows, labels: Sequence[str]) -> bool:
    cells = [row[name] for row in rows if row.get(name) not in (None, "")]
    return bool(cells) and all(like(cell, labels) for cell in cells)


def _length(name: str, rows: Rows) -> int:
    return sum(len(str(row.get(name, ""))) for row in rows)


def _text(cell: Any, _: Sequence[str]) -> bool:
    return isinstance(cell, str) and not isinstance(_cell(cell), (int, float))


def _label(cell: Any, labels: Sequence[str]) -> bool:
    plain = {label.lower() for label in labels}
    value = _cell(cell)
    return str(cell).strip().lower() in plain or (type(value) is int and 0 <= value < len(labels))


def _number(cell: Any, _: Sequence[str]) -> bool:
    return type(_cell(cell)) in (int, float)


def _words(cell: Any, _: Sequence[str]) -> bool:
    value = _cell(cell)
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _tags(cell: Any, labels: Sequence[str]) -> bool:
    value = _cell(cell)
    return isinstance(value, list) and all(type(tag) is int or tag in labels for tag in value)


def _answers(cell: Any, _: Sequence[str]) -> bool:
    value = _cell(cell)
    return isinstance(value, (dict, list)) and bool(value)


def _question(cell: Any, _: Sequence[str]) -> bool:
    return isinstance(cell, str) and cell.rstrip().endswith("?")


LOOKS: Mapping[str, Callable[[Any, Sequence[str]], bool]] = {
    "label": _label, "score": _number, "tags": _tags, "tokens": _words, "answers": _answers, "question": _question,
    "context": _text, "text": _text, "sentence1": _text, "sentence2": _text,
}  # fmt: skip
"""Column of a task -> what its cells look like."""
WORDY = frozenset({"text", "context"})
"""Columns of which the longest text is meant."""
