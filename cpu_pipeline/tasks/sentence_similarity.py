"""How alike two sentences are: their embeddings compared, correlated with what people say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _losses, _sentences, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Target, Task
from cpu_pipeline.tasks._sentences import SIMILARITIES, Sentences

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

Column = Literal["sentence1", "sentence2"]
COLUMNS: tuple[Column, ...] = ("sentence1", "sentence2")
Prompt = str | Annotated[dict[Literal["text"], str], Field(min_length=1)]
"""The name of one of the model's prompts, or a text of the recipe's own."""
UNLIMITED = 1 << 31
"""Tokens read of a sentence that nothing limits."""


class SentenceSimilarity(Task):
    """Embed two sentences and compare them, as sentence-transformers does with the same folder."""

    max_seq_length: int | None = Field(default=None, ge=8)
    """Tokens to use of each sentence, the prompt's included; by default the limit of the model's folder, as
    sentence-transformers reads it."""
    prompt: Prompt | None = None
    """What goes before each sentence: the name of a prompt in config_sentence_transformers.json, such as `query`, or a
    text of your own as `{text: "query: "}`; by default the prompt that the model's folder names as its default."""
    prompts: dict[Column, Prompt] = Field(default_factory=dict)
    """The same for single columns, such as `{sentence1: query, sentence2: document}`."""
    similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None
    """How two embeddings are compared; of the last two the negative distance. By default `similarity_fn_name` of
    config_sentence_transformers.json, else the cosine."""

    version = 2
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
        row |= {name: _tokens.text(raw, name) for name in COLUMNS}
        score = raw.get("score")
        if score is None:
            return row
        if type(score) not in (int, float) or not math.isfinite(score):
            raise ValueError(f"`score` is {score!r}, not a finite number")
        return {**row, "score": float(score)}

    def check_model(self, model: Path) -> None:
        """Read what the model's folder says of sentences, so that what is not supported is refused at once.

        Files that are not there yet are left out; `encode` needs every one.

        Raises:
            RecipeError: it asks for something that is not supported, or the options for a prompt that it has not.
        """
        super().check_model(model)
        self.before(_sentences.read(model, whole=False))

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise each sentence after its prompt: two features for each row, one after the other.

        Raises:
            RecipeError: a sentence has no token, so that there is nothing to embed; names the row.
        """
        sentences = _sentences.read(model)
        before = self.before(sentences)
        limit = self.max_seq_length or sentences.transformer.max_length or UNLIMITED
        tokenizer = _sentences.tokenizer(model, limit, sentences.transformer)
        skip = {name: _sentences.prompt_tokens(tokenizer, text, sentences) for name, text in before.items()}
        features = []
        for first in range(0, len(rows), _tokens.CHUNK):
            places = [
                (first + i, row, name) for i, row in enumerate(rows[first : first + _tokens.CHUNK]) for name in COLUMNS
            ]
            encoded = tokenizer.encode_batch([before[name] + row[name] for _, row, name in places])
            for (number, row, name), encoding in zip(places, encoded, strict=True):
                if not encoding.ids:
                    raise _empty(row, name)
                features.append(Feature(number, _tokens.inputs(encoding, model), skip[name]))
        return features

    def embed(self, feature: Feature, vectors: Any, model: Path) -> Any:
        """Make a sentence's embedding as the model's folder says.

        Args:
            feature: The sentence, as `encode` gives it.
            vectors: The model's last layer for it: floats of shape (tokens, size), without padding.
            model: The model's folder.

        Returns:
            A float64 array of one axis.
        """
        return _sentences.read(model).embed(vectors, feature.extra)

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Make each sentence's embedding as the model's folder says, and compare those of each pair.

        A prediction has its number under the name of what was computed: `cosine`, `dot`, ...
        """
        sentences = _sentences.read(model)
        kind = self.similarity or sentences.similarity
        predictions: list[Prediction] = []
        for row, numbers in zip(rows, _tokens.by_row(features, len(rows)), strict=True):
            first, second = (sentences.embed(outputs[i]["last_hidden_state"], features[i].extra) for i in numbers)
            value = _sentences.compare(kind, first, second)
            known = math.isfinite(value)
            predictions.append({"id": row["id"], kind: value} if known else {"id": row["id"], kind: None, "nan": True})
        return predictions

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Give each pair its score, from 0 (the least of all rows) to 1 (the most)."""
        scores = [row["score"] for row in rows if "score" in row]
        least, most = min(scores, default=0.0), max(scores, default=1.0)
        return [
            Target(tuple(numbers), {"score": (row["score"] - least) / ((most - least) or 1.0)})
            for row, numbers in zip(rows, _tokens.by_row(features, len(rows)), strict=True)
            if "score" in row
        ]

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Average the squared difference of each pair's cosine and its score."""
        from torch.nn.functional import cosine_similarity

        found = _losses.embed(outputs, mask, features, _sentences.read(model))
        cosines = cosine_similarity(found[0::2], found[1::2], dim=-1)
        return _losses.squared(cosines, _losses.values(targets, "score", cosines, "float32"))

    def taught(self, feature: Feature, outputs: Arrays, model: Path) -> Arrays:
        """Return the sentence's embedding: a student learns that, not the vectors of tokens."""
        return {_losses.EMBEDDING: self.embed(feature, outputs["last_hidden_state"], model)}

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far the directions of embeddings are from the teacher's: one minus the cosine."""
        found = _losses.embed(outputs, mask, features, _sentences.read(model))
        return _losses.cosine_gap(found, teacher[_losses.EMBEDDING])

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Correlate similarities with gold scores.

        A row without a similarity has no place in a correlation: it is left out, and counted under `missing` or `nan`.
        """
        scored = []
        for row in rows:
            if "score" not in row:
                raise _tokens.unlabelled(row, "score")
            value = _similarity(row["id"], predictions.get(row["id"], {}))
            scored.append({"id": row["id"], "gold": row["score"], "similarity": value})
        metrics = {name: self.aggregate(scored, name) for name in self.metrics}
        return Score(metrics, scored, _tokens.counts(rows, predictions))

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute Pearson's correlation, or Spearman's (that of the ranks); NaN when either side never varies."""
        import numpy as np

        known = [(row["gold"], row["similarity"]) for row in rows if row["similarity"] is not None]
        pairs = np.array(known, dtype=np.float64)
        if len(pairs) < 2 or (pairs == pairs[0]).all(axis=0).any():
            return float("nan")
        if metric == "spearman":
            from scipy.stats import rankdata

            pairs = rankdata(pairs, axis=0)
        centred = pairs - pairs.mean(axis=0)
        covariance = centred.T @ centred
        return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))

    def before(self, sentences: Sentences) -> dict[Column, str]:
        """Return what goes before the sentence of each column.

        Raises:
            RecipeError: the model has no such prompt.
        """
        return {name: _chosen(self.prompts.get(name) or self.prompt, sentences) for name in COLUMNS}


def _chosen(prompt: Prompt | None, sentences: Sentences) -> str:
    if prompt is None:
        return sentences.default_prompt
    if isinstance(prompt, dict):
        return prompt["text"]
    if prompt not in sentences.prompts:
        raise RecipeError(
            f"task: the model has no prompt {prompt!r}; it has {', '.join(sentences.prompts)}; "
            f"write a text of your own as `{{text: ...}}`"
        )
    return sentences.prompts[prompt]


def _empty(row: Row, column: str) -> RecipeError:
    return RecipeError(
        f"row {row['id']}: the tokenizer makes no token of `{column}`, {row[column][:40]!r}, so there is nothing to "
        f"embed; leave the row out, or set a prompt"
    )


def _similarity(row: str, prediction: Prediction) -> float | None:
    kind = next((kind for kind in SIMILARITIES if kind in prediction), "cosine")
    value = prediction.get(kind)
    if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
        raise RecipeError(f"prediction {row}: `{kind}` is {value!r}, not a finite number")
    return value
