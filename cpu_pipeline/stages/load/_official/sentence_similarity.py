"""sentence-similarity by a straight computation: AutoTokenizer, one sentence at a time, pooled as modules.json says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_official
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked
from cpu_pipeline.tasks import _pooling, _tokens
from cpu_pipeline.tasks.sentence_similarity import LONGEST

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row, Task


def encode(task: Any, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise both sentences of each row, one after the other; `extra` is how they are pooled."""
    tokenizer, pooling = load_official(original), _pooling.read(original)
    length = task.max_seq_length or pooling.max_seq_length or min(_tokens.positions(built) or LONGEST, LONGEST)
    asked = []
    for number, row in enumerate(rows):
        for name in ("sentence1", "sentence2"):
            text = row[name].lower() if pooling.lower else row[name]
            encoded = tokenizer([text], truncation=True, max_length=length)
            asked.append(Asked(number, {key: value[0] for key, value in encoded.items()}, pooling))
    return asked


def judge(
    task: Task, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare the cosine of the two sentences."""
    import numpy as np

    if answer.get("nan"):
        return None
    pairs = zip(asked, outputs, strict=True)
    first, second = (one.extra(np.asarray(output["last_hidden_state"])) for one, output in pairs)
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    expected = float(first @ second) / lengths if lengths else 0.0
    if abs(answer["cosine"] - expected) > TOLERANCE:
        return f"the cosine is {answer['cosine']:.4f}, and {expected:.4f} with transformers"
    return None
