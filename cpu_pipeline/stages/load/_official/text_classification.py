"""text-classification as transformers' pipeline does it: AutoTokenizer, one row at a time, softmax or sigmoid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_official
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked, close
from cpu_pipeline.tasks import _tokens

if TYPE_CHECKING:
    import numpy as np

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
    """Compare what is answered: the label and its share, the share of each label, or the number."""
    import numpy as np

    logits = np.asarray(outputs[0]["logits"], np.float64)
    if answer.get("nan") or not np.isfinite(logits).all():
        return None
    if "value" in answer:
        return _number(float(logits[0]), float(answer["value"]), str(config.problem_type))
    if "scores" in answer:
        return _each(1 / (1 + np.exp(-logits)), answer["scores"])
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    best, ours = int(shares.argmax()), int(answer["label"])
    named = str(config.id2label.get(ours))
    misnamed = named != answer["name"] and named != f"LABEL_{ours}"  # the latter is transformers' name for none
    if misnamed or shares[best] - shares[ours] > TOLERANCE:
        return f"the label is {answer['name']!r}, and {config.id2label[best]!r} with transformers"
    if abs(shares[ours] - float(answer["score"])) > TOLERANCE:
        return f"the share of {answer['name']!r} is {answer['score']:.4f}, and {shares[ours]:.4f} with transformers"
    return None


def _number(official: float, ours: float, problem: str) -> str | None:
    """Compare the number of a regression: as the model gives it; its sigmoid, too, where no problem_type is named."""
    import numpy as np

    ways = [official] if problem == "regression" else [official, float(1 / (1 + np.exp(-official)))]
    if any(close(ours, way) for way in ways):
        return None
    return f"the number is {ours:.5g}, and {official:.5g} with transformers"


def _each(shares: np.ndarray[Any, Any], ours: Mapping[str, float]) -> str | None:
    """Compare the share of each label, in the order of the outputs."""
    for (name, mine), share in zip(ours.items(), shares, strict=True):
        if abs(mine - share) > TOLERANCE:
            return f"the share of {name!r} is {mine:.4f}, and {share:.4f} with transformers"
    return None
