"""text-classification as transformers' pipeline does it: AutoTokenizer, one row at a time, softmax, the largest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_official
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked
from cpu_pipeline.tasks import _tokens

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row, Task


def encode(task: Task, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise a text, or a pair."""
    tokenizer = load_official(original)
    length, asked = _tokens.longest(task, built), []
    for number, row in enumerate(rows):
        texts = [[row[name]] for name in ("text", "text_pair") if name in row]
        encoded = tokenizer(*texts, truncation=True, max_length=length)
        asked.append(Asked(number, {name: value[0] for name, value in encoded.items()}))
    return asked


def judge(
    task: Task, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare the label and its share, where the model gives one label of several."""
    import numpy as np

    logits = np.asarray(outputs[0]["logits"], np.float64)
    several = config.problem_type in ("multi_label_classification", "regression")
    if several or len(logits) < 2 or answer.get("name") is None or not np.isfinite(logits).all():
        return None
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    best = int(shares.argmax())
    names = {str(name): number for number, name in config.id2label.items()}
    ours = names.get(str(answer["name"]))
    if ours is None or shares[best] - shares[ours] > TOLERANCE:
        return f"the label is {answer['name']!r}, and {config.id2label[best]!r} with transformers"
    if abs(shares[ours] - float(answer["score"])) > TOLERANCE:
        return f"the share of {answer['name']!r} is {answer['score']:.4f}, and {shares[ours]:.4f} with transformers"
    return None
