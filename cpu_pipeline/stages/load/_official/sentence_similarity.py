"""sentence-similarity as sentence-transformers does it, where it is installed; else straight from the last layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_official, quiet
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked
from cpu_pipeline.tasks import _sentences
from cpu_pipeline.tasks._sentence_transformers import Before
from cpu_pipeline.tasks._sentence_transformers import Official as Embedder
from cpu_pipeline.tasks.sentence_similarity import COLUMNS

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row


def encode(task: Any, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise both sentences of each row after their prompts, one after the other; `extra` is the embedding."""
    sentences = _sentences.read(original)
    limit = task.max_seq_length or sentences.transformer.max_length
    tokenizer = load_official(original)
    if sentences.transformer.lower and tokenizer.is_fast:
        tokenizer._tokenizer = _sentences.lowering(tokenizer.backend_tokenizer)
    with quiet():
        embedder = Embedder(original, task.max_seq_length)
    asked = []
    for number, row in enumerate(rows):
        for name in COLUMNS:
            before, text = _before(task, name, sentences)
            encoded = tokenizer([text + row[name]], truncation=limit is not None, max_length=limit)
            inputs = {key: value[0] for key, value in encoded.items()}
            asked.append(Asked(number, inputs, embedder.embed([row[name]], before)[0]))
    return asked


def _before(task: Any, column: str, sentences: Any) -> tuple[Before, str]:
    """Return what goes before the sentences of a column: as sentence-transformers is asked for it, and as text."""
    prompt = task.prompts.get(column) or task.prompt
    if prompt is None:
        return Before(), sentences.default_prompt
    if isinstance(prompt, dict):
        return Before(text=prompt["text"]), prompt["text"]
    return Before(name=prompt), sentences.prompts[prompt]


def judge(
    task: Any, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare how alike the two sentences are."""
    kind = next((kind for kind in _sentences.SIMILARITIES if kind in answer), None)
    if kind is None or answer.get("nan"):
        return None
    expected = _sentences.compare(kind, asked[0].extra, asked[1].extra)
    if abs(answer[kind] - expected) > TOLERANCE * max(1.0, abs(expected)):
        return f"{kind} is {answer[kind]:.4f}, and {expected:.4f} with sentence-transformers"
    return None
