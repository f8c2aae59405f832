"""token-classification as transformers' scripts do it: the tag of a word is that of its first token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_for_words, load_official
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._names import Names

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row, Task


def encode(task: Task, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise words; `extra` has the number of the word of each token, None for special ones."""
    tokenizer = load_for_words(original, load_official(original))
    length, asked = _tokens.longest(task, built), []
    for number, row in enumerate(rows):
        encoded = tokenizer([list(row["tokens"])], is_split_into_words=True, truncation=True, max_length=length)
        inputs = {name: value[0] for name, value in encoded.items()}
        asked.append(Asked(number, inputs, encoded.word_ids(0) if tokenizer.is_fast else None))
    return asked


def judge(
    task: Task, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare the tag of every word that was not cut."""
    import numpy as np

    words, logits = asked[0].extra, np.asarray(outputs[0]["logits"], np.float64)
    if words is None or answer.get("nan") or not np.isfinite(logits).all():
        return None
    names = Names.of(_tokens.label_names(config.to_dict()), getattr(task, "labels", None)).own
    for word in sorted({number for number in words if number is not None}):
        scores = logits[words.index(word)]
        best, tag = int(scores.argmax()), answer["tags"][word]
        same = [scores[number] for number, name in enumerate(names) if name == tag]
        if not same or scores[best] - max(same) > TOLERANCE:
            return f"the tag of word {word} is {tag!r}, and {names[best]!r} with transformers"
    return None
