"""A tag for every word: named entities, scored whole, or parts of speech, scored word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _losses, _tags, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Target, Task
from cpu_pipeline.tasks._constant import constants
from cpu_pipeline.tasks._labels import logits_of
from cpu_pipeline.tasks._names import Labels, Names, listed, match

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

OUTSIDE = _tags.OUTSIDE


class TokenClassification(Task):
    """Tag every word of a sentence."""

    max_seq_length: int = Field(default=512, ge=8)
    """Tokens to use of each row; words beyond them are tagged O."""
    labels: Labels = None
    """Names of the data's tag numbers, in order (of the outputs, where the model has no names); or a map, the data's
    tag: the model's. Where both have names, tags are compared by name, without regard to case."""
    scheme: _tags.Scheme | None = None
    """How tags mark entities; by default found out from the tags. With `none`, each word is scored by itself."""

    version = 2
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
        """Take tokens (words) and, where there are any, tags, one for each word: a name such as B-PER, or a number."""
        tokens, tags = raw.get("tokens"), raw.get("tags")
        if not isinstance(tokens, list) or not all(isinstance(word, str) for word in tokens):
            raise ValueError("`tokens` must be a list of words")
        row = {**_tokens.named(raw), "tokens": tokens}
        if tags is None:
            return row
        if not isinstance(tags, list) or len(tags) != len(tokens):
            raise ValueError(f"`tags` must be a list of {len(tokens)}, one for each word")
        return {**row, "tags": [self._tag(tag) for tag in tags]}

    def _tag(self, tag: Any) -> str | int:
        if isinstance(tag, str):
            return tag
        if type(tag) is not int:
            raise ValueError(f"a tag is {type(tag).__name__}, not a name or a number")
        if not isinstance(self.labels, tuple):
            if tag < 0:
                raise ValueError(f"a tag is {tag}, not a number from 0")
            return tag
        if not 0 <= tag < len(self.labels):
            raise ValueError(f"tag {tag} has no name in the task's {len(self.labels)} `labels`")
        return self.labels[tag]

    def check_model(self, model: Path) -> None:
        """Check that the model's tags are of one scheme, or of that which the option names.

        Raises:
            RecipeError: they are not.
        """
        super().check_model(model)
        self._schemes(Names.read(model, self.labels).own, "the model's outputs")

    def _schemes(self, tags: Sequence[str], whose: str) -> tuple[_tags.Scheme, ...]:
        """List the schemes that tags can be of."""
        if self.scheme is not None:
            _tags.check(tags, self.scheme, whose)
            return (self.scheme,)
        try:
            return _tags.family(tags)
        except RecipeError as error:
            raise RecipeError(f"{whose}: {error}") from None

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that the rows' tags are tags of the model's, in the same scheme.

        Raises:
            RecipeError: they share nothing, a number has no name, or the schemes differ.
        """
        names = Names.read(model, self.labels)
        schemes = self._schemes(names.own, "the model's outputs")
        met = {tag: row["id"] for row in rows for tag in row.get("tags", ())}
        if met and not names.named and self.scheme != "none":
            raise RecipeError(
                f"the model's outputs have no names ({listed(names.own)}): name the {len(names.own)} tags, in the "
                "order of the outputs, with the task's option `labels: [O, ...]`"
            )
        named = {tag: names.name(tag) for tag in met}
        for tag, name in named.items():
            if name is None and not isinstance(tag, str):
                raise names.refuse(met[tag], tag, list(met), "tag")
        inside = [str(tag) for tag in met if not _tags.is_outside(str(named[tag] or tag))]
        if inside and not any(named[tag] for tag in met if str(tag) in inside):
            raise RecipeError(
                f"the rows' tags ({listed(sorted(inside))}) and the model's ({listed(names.own)}) share nothing; "
                f"say which is which with the task's option `labels: {{{min(inside)}: ...}}`, or choose another model"
            )
        ours = self._schemes([str(name or tag) for tag, name in named.items()], "the rows' tags")
        if ours and schemes and not set(ours) & set(schemes):
            raise RecipeError(
                f"the rows' tags are {' or '.join(ours)} ({listed(sorted(inside))}), and the model's are "
                f"{' or '.join(schemes)} ({listed(names.own)}); bring the rows' into the model's scheme"
            )

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise the words; `extra` has, for each word, the position of its first token, or -1 where it was cut.

        Raises:
            RecipeError: not one tag of the rows is a tag of the model's, or their schemes differ.
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
        """Tag each word by the largest logit of its first token.

        `gold` has the row's tags as the model spells them, where the row has them otherwise.
        """
        import numpy as np

        names = Names.read(model, self.labels)
        outside = match(OUTSIDE, names.own) or OUTSIDE
        predictions: list[Prediction] = []
        for feature, answer in zip(features, outputs, strict=True):
            logits, positions, row = logits_of(answer, names), feature.extra, rows[feature.row]
            best = logits.argmax(axis=-1)
            finite = bool(np.isfinite(logits).all())
            tags = [names.own[int(best[at])] if at >= 0 and finite else outside for at in positions]
            prediction: dict[str, Any] = {"id": row["id"], "tags": tags, "cut": int((positions < 0).sum())}
            gold = [names.name(tag) or tag for tag in row.get("tags", ())]
            prediction |= {} if gold == row.get("tags", []) else {"gold": gold}
            predictions.append(prediction if finite else {**prediction, "nan": True})
        return predictions

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Give the first token of each word the number of its tag; no loss counts the other tokens."""
        import numpy as np

        names = Names.read(model, self.labels)
        found = []
        for number, feature in enumerate(features):
            row = rows[feature.row]
            if "tags" not in row:
                continue
            labels = np.full(feature.length, _losses.IGNORED)
            for at, tag in zip(feature.extra, row["tags"], strict=True):
                if at >= 0 and (name := names.name(tag)) is not None:
                    labels[at] = names.own.index(name)
            found.append(Target((number,), {"labels": labels}))
        return found

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Average the cross-entropy over words."""
        return _losses.tokens(outputs["logits"], [target.values["labels"] for target in targets])

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far the shares of each token's tags are from the teacher's."""
        return _losses.divergence(outputs["logits"], teacher["logits"], temperature, mask)

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score whole entities, type and both ends, as seqeval does, and words for accuracy.

        Without a scheme, the words with a tag are what is found and missed. Every word of a row without a prediction
        counts as tagged O. Each entry of `rows` has both tag lists and the counts from which any set of rows is scored
        without parsing tags again.
        """
        golds = _golds(rows, predictions)
        scheme = self.scheme or _tags.detect(golds)
        known = dict.fromkeys(tag for gold in golds for tag in gold)
        scored = []
        for row, gold in zip(rows, golds, strict=True):
            prediction = predictions.get(row["id"], {})
            predicted = prediction.get("tags", [OUTSIDE] * len(gold))
            if not isinstance(predicted, list) or len(predicted) != len(gold):
                raise RecipeError(f"prediction {row['id']}: `tags` must be a list of {len(gold)}, one for each word")
            if "cut" not in prediction:  # made elsewhere, where tags may be spelled in another way
                predicted = [match(str(tag), known) or str(tag) for tag in predicted]
            scored.append({"id": row["id"], "gold": gold, "predicted": predicted, **_counts(gold, predicted, scheme)})
        counts = _tokens.counts(rows, predictions)
        counts["cut"] = sum(int(predictions.get(row["id"], {}).get("cut", 0)) for row in rows)
        tags = ([tag for entry in scored for tag in entry[side]] for side in ("gold", "predicted"))
        metrics = {name: self.aggregate(scored, name) for name in self.metrics}
        return Score(metrics, scored, counts, constants("tag", *tags), _about(scheme))

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


def _golds(rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> list[list[str]]:
    """List the rows' tags as the model spells them, which predictions tell; of unanswered rows as those of others do.

    Raises:
        RecipeError: a row has none, or numbers that no prediction tells the names of.
    """
    told: dict[Any, str] = {}
    for row in rows:
        if "tags" not in row:
            raise _tokens.unlabelled(row, "tags")
        gold = predictions.get(row["id"], {}).get("gold", ())
        told |= dict(zip(row["tags"], gold, strict=False))
    found = [[told.get(tag, tag) for tag in row["tags"]] for row in rows]
    if any(not isinstance(tag, str) for tags in found for tag in tags):
        raise RecipeError("the rows' tags are numbers: name them, in order, with the task's `labels`")
    return found


def _counts(gold: Sequence[str], predicted: Sequence[str], scheme: _tags.Scheme) -> dict[str, int]:
    """Count one row's entities (without a scheme: tagged words): those in both, predicted, gold; words: right, all."""
    if scheme == "none":
        wanted, got = _tags.words(gold), _tags.words(predicted)
    else:
        wanted, got = _tags.entities(gold, scheme), _tags.entities(predicted, scheme)
    right = sum(a == b for a, b in zip(gold, predicted, strict=True))
    counted = {"hits": len(wanted & got), "found": len(got), "entities": len(wanted)}
    return {**counted, "right": right, "words": len(gold)}


def _about(scheme: _tags.Scheme) -> str:
    if scheme == "none":
        return "Tags have no scheme (no B-, I-): words are scored one by one, those tagged O only in accuracy."
    rule = "seqeval's rules of this scheme" if scheme in _tags.STRICT else "conlleval's rule, seqeval's default mode"
    return f"Tags are {scheme}: whole entities are scored, by {rule}; accuracy is that of words."
