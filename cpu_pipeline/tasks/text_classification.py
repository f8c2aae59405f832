"""One label for a sentence or a pair of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Feature, Row
from cpu_pipeline.tasks._labels import LabelTask, check_labels


class TextClassification(LabelTask):
    """Choose one label for a sentence or a pair."""

    max_seq_length: int = Field(default=128, ge=8)
    """Tokens to use of each row; of a pair the longer sentence is cut first."""

    version = 1
    packages = ("tokenizers", "numpy")
    auto_class = "AutoModelForSequenceClassification"
    columns: ClassVar = {"text": True, "text_pair": False, "label": False}
    pipeline_tag = "text-classification"

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take text and, where there are any, text_pair and label (a number from 0, or a name of the model's)."""
        row = {**_tokens.named(raw), "text": _tokens.text(raw, "text")}
        if raw.get("text_pair") is not None:
            row["text_pair"] = _tokens.text(raw, "text_pair")
        return {**row, **self.label(raw)}

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise each row into one feature.

        Raises:
            RecipeError: a row's label is not one of the model's, or it has no token.
        """
        check_labels(rows, model)
        tokenizer = _tokens.tokenizer(model, _tokens.longest(self, model))
        features = []
        for first in range(0, len(rows), _tokens.CHUNK):
            chunk = rows[first : first + _tokens.CHUNK]
            texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in chunk]
            encoded = enumerate(tokenizer.encode_batch(texts), first)
            features += [Feature(number, _tokens.inputs(encoding, model)) for number, encoding in encoded]
        _tokens.check_filled(rows, features)
        return features
