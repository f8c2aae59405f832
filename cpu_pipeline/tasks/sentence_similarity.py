"""How alike two sentences are: the cosine of their embeddings, correlated with what people say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _pooling, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Task

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

LONGEST = 512
"""Tokens read when neither the recipe nor the checkpoint limits them."""


class SentenceSimilarity(Task):
    """Embed two sentences and compare them."""

    max_seq_length: int | None = Field(default=None, ge=8)
    """Tokens to use of each sentence; by default that of sentence_bert_config.json, else the model's positions."""

    version = 1
    packages = ("tokenizers", "numpy", "scipy")
    auto_class = "AutoModel"
    outputs = ("last_hidden_state",)
    per_token = True
    columns: ClassVar = {"sentence1": True, "sentence2": True, "score": False}
    kinds: ClassVar = {"score": "number"}
    metrics = ("spearman", "pearson")
    gold = "score"
    pipeline_tag = "sentence-similarity"

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take sentence1, sentence2 and, where there is one, score: a number on any scale."""
        row: dict[str, Any] = _tokens.named(raw)
        row |= {name: _tokens.text(raw, name) for name in ("sentence1", "sentence2")}
        score = raw.get("score")
        if score is None:
            return row
        if type(score) not in (int, float) or not math.isfinite(score):
            raise ValueError(f"`score` is {score!r}, not a finite number")
        return {**row, "score": float(score)}

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise each sentence by itself: two features for each row, one after the other."""
        pooling = _pooling.read(model)
        limit = self.max_seq_length or pooling.max_seq_length or min(_tokens.positions(model) or LONGEST, LONGEST)
        tokenizer = _tokens.tokenizer(model, limit)
        features = []
        for first in range(0, len(rows), _tokens.CHUNK):
            chunk = rows[first : first + _tokens.CHUNK]
            texts = [row[name] for row in chunk for name in ("sentence1", "sentence2")]
            encoded = tokenizer.encode_batch([text.lower() if pooling.lower else text for text in texts])
            features += [Feature(first + i // 2, _tokens.inputs(encoding, model)) for i, encoding in enumerate(encoded)]
        _tokens.check_filled(rows, features)
        return features

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Pool token vectors as modules.json says (without one: their mean) and give the cosine of each pair."""
        import numpy as np

        pooling = _pooling.read(model)
        predictions: list[Prediction] = []
        for row, numbers in zip(rows, _tokens.by_row(features, len(rows)), strict=True):
            first, second = (pooling(outputs[i]["last_hidden_state"]) for i in numbers)
            lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
            cosine = float(first @ second) / lengths if lengths else 0.0
            if math.isfinite(lengths) and math.isfinite(cosine):
                predictions.append({"id": row["id"], "cosine": cosine})
            else:
                predictions.append({"id": row["id"], "cosine": None, "nan": True})
        return predictions

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Correlate cosines with gold scores.

        A row without a cosine has no place in a correlation: it is left out, and counted under `missing` or `nan`.
        """
        scored = []
        for row in rows:
            if "score" not in row:
                raise _tokens.unlabelled(row, "score")
            cosine = predictions.get(row["id"], {}).get("cosine")
            if cosine is not None and (type(cosine) not in (int, float) or not math.isfinite(cosine)):
                raise RecipeError(f"prediction {row['id']}: `cosine` is {cosine!r}, not a finite number")
            scored.append({"id": row["id"], "gold": row["score"], "cosine": cosine})
        metrics = {name: self.aggregate(scored, name) for name in self.metrics}
        return Score(metrics, scored, _tokens.counts(rows, predictions))

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute Pearson's correlation, or Spearman's (that of the ranks); NaN when either side never varies."""
        import numpy as np

        pairs = np.array([(row["gold"], row["cosine"]) for row in rows if row["cosine"] is not None], dtype=np.float64)
        if len(pairs) < 2 or (pairs == pairs[0]).all(axis=0).any():
            return float("nan")
        if metric == "spearman":
            from scipy.stats import rankdata

            pairs = rankdata(pairs, axis=0)
        centred = pairs - pairs.mean(axis=0)
        covariance = centred.T @ centred
        return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
