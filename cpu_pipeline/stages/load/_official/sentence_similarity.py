"""sentence-similarity as sentence-transformers does it, where it is installed; else AutoTokenizer and our modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import load_official, quiet
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked, close, furthest
from cpu_pipeline.tasks import _sentences
from cpu_pipeline.tasks.sentence_similarity import COLUMNS

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row
    from cpu_pipeline.tasks._sentences import Sentences

    Vector = np.ndarray[Any, Any]

PACKAGE = "sentence_transformers"
FIRST = 6
"""Major version from which it reads a folder as this package does; earlier ones strip texts, among other things."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)
"""What it raises on a folder that it cannot open, such as one without weights."""


@dataclass(frozen=True)
class Sentence:
    """What `judge` needs of one sentence."""

    sentences: Sentences
    prompt: int
    """Tokens of its prompt that are left out."""
    similarity: str
    """How the folder has two embeddings compared."""
    vector: Vector | None
    """Its embedding by sentence-transformers; None where that is not installed, or cannot open the folder."""


def encode(task: Any, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise both sentences of each row after their prompts, one after the other, and embed them."""
    sentences = _sentences.read(original)
    length = task.max_seq_length or sentences.transformer.max_length
    tokenizer = _tokenizer(original, sentences)
    cut: Mapping[str, Any] = {} if length is None else {"truncation": True, "max_length": length}
    package, before = _package(original, task), task.before(sentences)
    similarity = sentences.similarity if package is None else package.similarity_fn_name
    asked = []
    for number, row in enumerate(rows):
        for column in COLUMNS:
            encoded = tokenizer([before[column] + row[column]], **cut)
            left_out = _left_out(tokenizer, before[column], cut) if sentences.leaves_out_prompt else 0
            vector = None if package is None else _embed(package, row[column], task.prompts.get(column) or task.prompt)
            inputs = {key: value[0] for key, value in encoded.items()}
            asked.append(Asked(number, inputs, Sentence(sentences, left_out, similarity, vector)))
    return asked


def judge(
    task: Any, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare the embeddings of the two sentences, and how alike they are."""
    vectors = []
    for column, one, output in zip(COLUMNS, asked, outputs, strict=True):
        ours = one.extra.sentences.embed(output["last_hidden_state"], one.extra.prompt)
        if one.extra.vector is not None and not close(ours, one.extra.vector):
            apart = furthest(ours, one.extra.vector).replace("with transformers", "with sentence-transformers")
            return f"a number of the embedding of {column} is {apart}"
        vectors.append(ours if one.extra.vector is None else one.extra.vector)
    if answer.get("nan"):
        return None
    kind = task.similarity or asked[0].extra.similarity
    expected, ours = _sentences.compare(kind, *vectors), answer.get(kind)
    if ours is None:
        return f"the answer has no {kind}, which sentence-transformers computes"
    if abs(ours - expected) > TOLERANCE * max(1.0, abs(expected)):
        return f"{kind} is {ours:.4f}, and {expected:.4f} with sentence-transformers"
    return None


def _tokenizer(original: Path, sentences: Sentences) -> Any:
    from tokenizers import normalizers

    tokenizer = load_official(original)
    if sentences.transformer.lower:
        own = tokenizer.backend_tokenizer.normalizer
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), *([own] if own else [])]
        )
    return tokenizer


def _left_out(tokenizer: Any, prompt: str, cut: Mapping[str, Any]) -> int:
    [ids] = tokenizer([prompt], **cut)["input_ids"] if prompt else [[]]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids) if ids else 0


def _package(original: Path, task: Any) -> Any:
    """Open the folder with sentence-transformers, in float32; None where that cannot be."""
    if importlib.util.find_spec(PACKAGE) is None or not any(original.glob("model*.safetensors")):
        return None
    from importlib.metadata import version

    if int(version("sentence-transformers").partition(".")[0]) < FIRST:
        return None
    import torch
    from sentence_transformers import SentenceTransformer

    model = None
    with quiet(), suppress(*UNREADABLE):
        model = SentenceTransformer(
            str(original), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
        )
        if task.max_seq_length is not None:
            model.max_seq_length = task.max_seq_length
    return model


def _embed(package: Any, text: str, prompt: Any) -> Vector:
    asked = {"prompt": prompt["text"]} if isinstance(prompt, dict) else {"prompt_name": prompt}
    with quiet():
        [vector] = package.encode([text], show_progress_bar=False, **asked)
    found: Vector = vector
    return found
