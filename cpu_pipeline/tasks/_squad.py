"""SQuAD's own scoring and file formats, of version 1.1 and 2.0."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """Lower the case, drop ASCII punctuation, then English articles, then surplus white space."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(predicted: str, gold: str) -> float:
    """Say 1 when both are equal after `normalize`, else 0."""
    return float(normalize(predicted) == normalize(gold))


def f1(predicted: str, gold: str, version: int) -> float:
    """Compute F1 of the bags of words left by `normalize`; 2.0 calls two empty bags a match, 1.1 does not."""
    got, wanted = normalize(predicted).split(), normalize(gold).split()
    if version == 2 and not (got and wanted):
        return float(got == wanted)
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted)) if common else 0.0


def score_one(predicted: str | None, golds: Sequence[str], version: int) -> dict[str, float]:
    """Score one question against the gold answer that fits best; None, no prediction, is wrong.

    2.0 leaves out gold answers that `normalize` empties, and takes the empty answer as gold where none is left. There
    the scores are repeated as HasAns_ or NoAns_, by whether the data set has answers.
    """
    wanted = [gold for gold in golds if version == 1 or normalize(gold)] or [""]
    em = max(exact_match(predicted, gold) for gold in wanted) if predicted is not None else 0.0
    best = max(f1(predicted, gold, version) for gold in wanted) if predicted is not None else 0.0
    scores = {"f1": best, "exact_match": em}
    if version == 2:
        kind = "HasAns" if golds else "NoAns"
        scores |= {f"{kind}_exact": em, f"{kind}_f1": best}
    return scores


def read_references(path: Path) -> list[dict[str, Any]] | None:
    """Read the official data set's JSON into rows; None when the file is something else."""
    document = _read_whole(path)
    if document is None or not isinstance(document.get("data"), list):
        return None
    rows = []
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    row = {"id": question["id"], "question": question["question"], "context": paragraph["context"]}
                    rows.append({**row, "answers": question["answers"]})
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{path}: not SQuAD's data/paragraphs/qas: {error!r}") from error
    return rows


def read_version(path: Path) -> int | None:
    """Read SQuAD's version that the official data set's JSON is of; None when the file is something else.

    Its `version` says it (`1.1`, `v2.0`); without one, 2 where a question has no answer.

    Raises:
        RecipeError: it is of another version.
    """
    document = _read_whole(path)
    if document is None or not isinstance(document.get("data"), list):
        return None
    said = str(document.get("version", "")).strip().lower().removeprefix("v")
    if said.partition(".")[0] in ("1", "2"):
        return int(said[0])
    if said:
        raise RecipeError(
            f"{path}: SQuAD's version {document['version']!r} is not known; set it with --set version=1 or 2"
        )
    return 1 if all(row["answers"] for row in read_references(path) or ()) else 2


def read_predictions(path: Path) -> dict[str, str] | None:
    """Read the official predictions, one JSON object of id -> text; None when the file is something else."""
    document = _read_whole(path)
    if document is None or {"id", "prediction_text"} <= set(document) or {"id", "answer"} <= set(document):
        return None
    for name, value in document.items():
        if not isinstance(value, str):
            raise RecipeError(f"{path}: {name}: the answer is {type(value).__name__}, not text")
    return document


def _read_whole(path: Path) -> dict[str, Any] | None:
    """Parse the file as one JSON object; None when it is something else (JSON lines are no single value)."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def answers(value: Any) -> dict[str, list[Any]]:
    """Bring a row's answers to {text: [...], answer_start: [...]}, the form of the Hub's squad data sets.

    Raises:
        ValueError: they are neither that nor SQuAD's own list of {text, answer_start}.
    """
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(answer, Mapping) for answer in value)
    ):
        value = {key: [answer.get(key) for answer in value] for key in ("text", "answer_start")}
    if not isinstance(value, Mapping) or not {"text", "answer_start"} <= set(value):
        raise ValueError("`answers` must be {text: [...], answer_start: [...]}")
    texts, starts = list(value["text"]), list(value["answer_start"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("`answers.text` must be a list of texts")
    if not all(type(start) is int and start >= 0 for start in starts) or len(starts) != len(texts):
        raise ValueError("`answers.answer_start` must have one character number for each text")
    return {"text": texts, "answer_start": starts}
