"""Do two sentences mean the same? The cosine of their mean vectors decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import Feature, Prediction, Row, Score, Task

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays


class DuplicateDetection(Task):
    """Decide for two sentences whether they are duplicates."""

    threshold: float = Field(default=0.8, ge=-1, le=1)
    """Cosine from which on two sentences count as duplicates."""

    version = 1
    packages = ("tokenizers", "numpy")
    auto_class = "AutoModel"
    outputs = ("last_hidden_state",)
    per_token = True
    columns: ClassVar = {"first": True, "second": True, "duplicate": False}
    kinds: ClassVar = {"duplicate": "json"}
    metrics = ("accuracy",)
    pipeline_tag = "sentence-similarity"

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Check one row of the data and bring it to this task's form."""
        for column in ("first", "second"):
            if not isinstance(raw.get(column), str):
                raise ValueError(f"`{column}` is not text")
        row = {name: raw[name] for name in ("id", "first", "second") if name in raw}
        return row if raw.get("duplicate") is None else {**row, "duplicate": bool(raw["duplicate"])}

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenize: two features per row, unpadded. Padding is added later, per batch."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(128)
        features = []
        for number, row in enumerate(rows):
            for encoding in tokenizer.encode_batch([row["first"], row["second"]]):
                inputs = {
                    "input_ids": encoding.ids,
                    "attention_mask": encoding.attention_mask,
                    "token_type_ids": encoding.type_ids,
                }
                features.append(Feature(number, inputs))
        return features

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Turn outputs of shape (tokens, size), one per feature, into one prediction per row."""
        import numpy as np

        predictions: list[Prediction] = []
        means = [output["last_hidden_state"].astype(np.float64).mean(axis=0) for output in outputs]
        for number, row in enumerate(rows):
            first, second = means[2 * number], means[2 * number + 1]
            cosine = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
            if np.isfinite(cosine):
                predictions.append({"id": row["id"], "cosine": cosine, "duplicate": cosine >= self.threshold})
            else:
                predictions.append({"id": row["id"], "nan": True})
        return predictions

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score by row; a row without a prediction is wrong and is counted."""
        scored = []
        for row in rows:
            if "duplicate" not in row:
                raise RecipeError(f"row {row['id']}: no `duplicate`; a metric needs it")
            predicted = predictions.get(row["id"], {}).get("duplicate")
            scored.append({"id": row["id"], "accuracy": float(predicted == row["duplicate"])})
        counts = {
            "rows": len(rows),
            "missing": sum(row["id"] not in predictions for row in rows),
            "unknown": len(predictions.keys() - {row["id"] for row in rows}),
            "nan": sum(bool(prediction.get("nan")) for prediction in predictions.values()),
        }
        return Score({"accuracy": self.aggregate(scored, "accuracy")}, scored, counts)

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute the metric from entries of `Score.rows`; the bootstrap calls this on resampled ones."""
        return sum(row[metric] for row in rows) / len(rows) if rows else float("nan")
