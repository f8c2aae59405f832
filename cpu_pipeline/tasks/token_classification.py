"""A tag for every word: named entities and the like, scored by whole entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Task

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

OUTSIDE = "O"


class TokenClassification(Task):
    """Tag every word of a sentence."""

    max_seq_length: int = Field(default=512, ge=8)
    """Tokens to use of each row; words beyond them are tagged O."""
    labels: tuple[str, ...] | None = None
    """Names of the data's tag numbers, in order; needed when its tags are numbers."""

    version = 1
    packages = ("tokenizers", "numpy", "seqeval")
    auto_class = "AutoModelForTokenClassification"
    outputs = ("logits",)
    per_token = True
    columns: ClassVar = {"tokens": True, "tags": False}
    kinds: ClassVar = {"tokens": "json", "tags": "json"}
    metrics = ("f1", "precision", "recall", "accuracy")
    gold = "tags"
    pipeline_tag = "token-classification"

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take tokens (words) and, where there are any, tags: one for each word, such as O, B-PER, I-PER."""
        tokens, tags = raw.get("tokens"), raw.get("tags")
        if not isinstance(tokens, list) or not all(isinstance(word, str) for word in tokens):
            raise ValueError("`tokens` must be a list of words")
        row = {**_tokens.named(raw), "tokens": tokens}
        if tags is None:
            return row
        if not isinstance(tags, list) or len(tags) != len(tokens):
            raise ValueError(f"`tags` must be a list of {len(tokens)}, one for each word")
        return {**row, "tags": [self._tag(tag) for tag in tags]}

    def _tag(self, tag: Any) -> str:
        if isinstance(tag, str):
            return tag
        if type(tag) is not int:
            raise ValueError(f"a tag is {type(tag).__name__}, not a name or a number")
        if self.labels is None:
            raise ValueError("tags are numbers: name them, in order, with the task's `labels`")
        if not 0 <= tag < len(self.labels):
            raise ValueError(f"tag {tag} has no name in the task's {len(self.labels)} `labels`")
        return self.labels[tag]

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that at least one tag of the rows is a tag of the model's."""
        known = set(_tokens.labels(model))
        met = {tag for row in rows for tag in row.get("tags", ())} - {OUTSIDE}
        if met and not met & known:
            raise RecipeError(
                f"the rows' tags ({', '.join(sorted(met))}) and the model's ({', '.join(sorted(known))}) share nothing"
            )

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise the words; `extra` has, for each word, the position of its first token, or -1 where it was cut.

        Raises:
            RecipeError: not one tag of the rows is a tag of the model's.
        """
        import numpy as np

        self.check_rows(rows, model)
        tokenizer = _tokens.tokenizer(model, _tokens.longest(self, model), prefix_space=True)
        features = []
        for first in range(0, len(rows), _tokens.CHUNK):
            words = [row["tokens"] for row in rows[first : first + _tokens.CHUNK]]
            for number, encoding in enumerate(tokenizer.encode_batch(words, is_pretokenized=True), first):
                positions = np.full(len(rows[number]["tokens"]), -1, dtype=np.int32)
                for position, word in reversed(list(enumerate(encoding.word_ids))):
                    if word is not None:
                        positions[word] = position
                features.append(Feature(number, _tokens.inputs(encoding, model), positions))
        _tokens.check_filled(rows, features)
        return features

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Tag each word by the largest logit of its first token."""
        import numpy as np

        names = _tokens.labels(model)
        predictions: list[Prediction] = []
        for feature, answer in zip(features, outputs, strict=True):
            logits, positions = answer["logits"], feature.extra
            best = logits.argmax(axis=-1)
            tags = [names[int(best[position])] if position >= 0 else OUTSIDE for position in positions]
            prediction: dict[str, Any] = {
                "id": rows[feature.row]["id"],
                "tags": tags,
                "cut": int((positions < 0).sum()),
            }
            if not np.isfinite(logits).all():
                prediction |= {"tags": [OUTSIDE] * len(positions), "nan": True}
            predictions.append(prediction)
        return predictions

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score whole entities, type and both ends, as seqeval's default mode does, and words for accuracy.

        Every word of a row without a prediction counts as tagged O. Each entry of `rows` has both tag lists and the
        counts from which any set of rows is scored without parsing tags again.
        """
        scored = []
        for row in rows:
            if "tags" not in row:
                raise _tokens.unlabelled(row, "tags")
            gold = row["tags"]
            predicted = predictions.get(row["id"], {}).get("tags", [OUTSIDE] * len(gold))
            if not isinstance(predicted, list) or len(predicted) != len(gold):
                raise RecipeError(f"prediction {row['id']}: `tags` must be a list of {len(gold)}, one for each word")
            scored.append({"id": row["id"], "gold": gold, "predicted": predicted, **_counts(gold, predicted)})
        counts = _tokens.counts(rows, predictions)
        counts["cut"] = sum(int(predictions.get(row["id"], {}).get("cut", 0)) for row in rows)
        return Score({name: self.aggregate(scored, name) for name in self.metrics}, scored, counts)

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute a metric from the rows' counts; NaN without words. Nothing by nothing is 0, as in seqeval."""
        sums = {key: sum(row[key] for row in rows) for key in ("hits", "found", "entities", "right", "words")}
        if not sums["words"]:
            return float("nan")
        if metric == "accuracy":
            return float(sums["right"] / sums["words"])
        part, whole = {
            "precision": (sums["hits"], sums["found"]),
            "recall": (sums["hits"], sums["entities"]),
            "f1": (2 * sums["hits"], sums["found"] + sums["entities"]),
        }[metric]
        return float(part / whole) if whole else 0.0


def _counts(gold: list[str], predicted: list[str]) -> dict[str, int]:
    """Count one row's entities: those in both, predicted, gold; and its words: right, all."""
    from seqeval.metrics.sequence_labeling import get_entities

    wanted, got = set(get_entities(gold)), set(get_entities(predicted))
    right = sum(a == b for a, b in zip(gold, predicted, strict=True))
    counted = {"hits": len(wanted & got), "found": len(got), "entities": len(wanted)}
    return {**counted, "right": right, "words": len(gold)}
