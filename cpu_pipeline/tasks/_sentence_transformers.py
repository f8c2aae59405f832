"""The embeddings of a model's folder by sentence-transformers itself, to compare ours with."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.tasks import _sentences

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

PACKAGE = "sentence_transformers"
FIRST = 6
"""Major version from which it reads a folder as this package does; earlier ones strip texts, among other things."""


@dataclass(frozen=True)
class Before:
    """What goes before a text, as sentence-transformers is asked for it; neither for the model's default."""

    name: str | None = None
    text: str | None = None


class Official:
    """A model's folder, opened by sentence-transformers in float32; without it, by transformers.

    Args:
        model: The folder, with safetensors.
        max_seq_length: Tokens to use of each text; by default what the folder says.
    """

    def __init__(self, model: Path, max_seq_length: int | None = None) -> None:
        self.package = PACKAGE if _has_package() else "transformers"
        self._answer = (_Whole if _has_package() else _Straight)(model, max_seq_length)

    def embed(self, texts: Sequence[str], before: Before) -> Array:
        """Embed each text by itself, so that padding plays no part; an array of shape (texts, size)."""
        import numpy as np

        return np.stack([self._answer(text, before) for text in texts])


class _Whole:
    """Everything by sentence-transformers."""

    def __init__(self, model: Path, max_seq_length: int | None) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(
            str(model), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
        )
        if max_seq_length is not None:
            self._model.max_seq_length = max_seq_length

    def __call__(self, text: str, before: Before) -> Array:
        [vector] = self._model.encode([text], prompt_name=before.name, prompt=before.text, show_progress_bar=False)
        found: Array = vector
        return found


class _Straight:
    """Tokens and the last layer by transformers' own classes; what follows is ours."""

    def __init__(self, model: Path, max_seq_length: int | None) -> None:
        import torch
        import transformers
        from tokenizers import normalizers

        self._sentences = _sentences.read(model)
        self._limit = max_seq_length or self._sentences.transformer.max_length
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
        if self._sentences.transformer.lower:
            backend = self._tokenizer.backend_tokenizer
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [backend.normalizer])])
        config = transformers.AutoConfig.from_pretrained(model, local_files_only=True)
        kind = "AutoModelForTextEncoding" if config.model_type in ("mt5", "t5", "umt5") else "AutoModel"
        self._model = getattr(transformers, kind).from_pretrained(model, dtype=torch.float32, local_files_only=True)
        self._model.eval()

    def __call__(self, text: str, before: Before) -> Array:
        import torch

        prompt = self._sentences.default_prompt if before.text is None else before.text
        prompt = prompt if before.name is None else self._sentences.prompts[before.name]
        with torch.inference_mode():
            vectors = self._model(**self._tokens(prompt + text)).last_hidden_state[0].numpy()
        return self._sentences.embed(vectors, self._skipped(prompt))

    def _tokens(self, text: str) -> Any:
        cut = {} if self._limit is None else {"truncation": True, "max_length": self._limit}
        return self._tokenizer(text, return_tensors="pt", **cut)

    def _skipped(self, prompt: str) -> int:
        if not prompt or not self._sentences.leaves_out_prompt:
            return 0
        ids = self._tokens(prompt)["input_ids"][0].tolist()
        return len(ids) - (ids[-1] in self._tokenizer.all_special_ids)


def _has_package() -> bool:
    if importlib.util.find_spec(PACKAGE) is None:
        return False
    from importlib.metadata import version

    return int(version("sentence-transformers").partition(".")[0]) >= FIRST
