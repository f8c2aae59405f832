"""What tasks that give each row one label have in common: labels of rows, the answer, the scores."""

from __future__ import annotations

import math
from abc import ABC
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _losses, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Target, Task
from cpu_pipeline.tasks._constant import constants
from cpu_pipeline.tasks._names import Labels, Names, match

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.core.model_io import Arrays


class LabelTask(Task, ABC):
    """Choose one label for each row, by the largest of the model's `logits`; a row has one feature."""

    labels: Labels = None
    """Names of the data's label numbers, in order (of the outputs, where the model has no names); or a map, the data's
    label: the model's. Where both have names, labels are compared by name, without regard to case."""
    average: Literal["binary", "macro"] = "macro"
    """F1 of the positive label alone, or the plain mean of every label's."""
    positive: int | str = 1
    """The label, by number or name, that `average: binary` is about."""

    outputs = ("logits",)
    per_token = False
    kinds: ClassVar = {"label": "label"}
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "matthews")
    gold = "label"
    row_means: ClassVar = frozenset({"accuracy"})

    def label(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take a raw row's label, a number from 0 or a name; nothing where it has none.

        Raises:
            ValueError: it is something else, or has no name in the task's `labels`.
        """
        label = raw.get("label")
        if label is None:
            return {}
        if isinstance(label, bool):
            label = str(label).lower()
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, (int, str)):
            raise ValueError(f"`label` is {type(label).__name__}, not a number from 0 or a name")
        if isinstance(label, int):
            label = self._numbered(label)
        return {"label": label}

    def _numbered(self, label: int) -> int | str:
        if label < 0:
            raise ValueError(f"`label` is {label}: this split is not labelled")
        if not isinstance(self.labels, tuple):
            return label
        if label >= len(self.labels):
            raise ValueError(f"`label` is {label}, but the task's `labels` are {len(self.labels)}")
        return self.labels[label]

    def check_model(self, model: Path) -> None:
        """Check the model's head, that it has labels to choose from, and the one that `positive` names."""
        super().check_model(model)
        self.check_names(model)

    def check_names(self, model: Path) -> None:
        """Check that the model has labels to choose from, and the one that `positive` names.

        Raises:
            RecipeError: it has one output, names that are wrong, or no such label.
        """
        names = Names.read(model, self.labels)
        if len(names.own) < 2:
            raise RecipeError(
                f"the model has one output ({names.own[0]}), and a label is chosen among several; it is no classifier"
            )
        if self.average == "binary" and isinstance(self.positive, str) and names.resolve(self.positive) is None:
            raise RecipeError(
                f"positive: {self.positive!r} is not one of the model's labels: {', '.join(names.own)}; correct it"
            )

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that the rows' labels are the model's.

        Raises:
            RecipeError: one is not.
        """
        self.check_names(model)
        names = Names.read(model, self.labels)
        for row in rows:
            if "label" in row and names.resolve(row["label"]) is None:
                raise names.refuse(row["id"], row["label"], [r["label"] for r in rows if "label" in r])

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Take the label with the largest logit (of equals the first), by number and name, with its softmax.

        `gold` is the row's own label as the model has it, where the row has it otherwise.
        """
        names = Names.read(model, self.labels)
        predictions: list[Prediction] = []
        for feature, answer in zip(features, outputs, strict=True):
            row, logits = rows[feature.row], logits_of(answer, names)
            predictions.append({**_largest(row, logits, names), **_gold(row, names)})
        return predictions

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Give the number of each labelled row's output."""
        names = Names.read(model, self.labels)
        own = [(i, names.name(rows[f.row]["label"])) for i, f in enumerate(features) if "label" in rows[f.row]]
        return [Target((i,), {"label": names.own.index(name)}) for i, name in own if name is not None]

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Compute the cross-entropy with the labels."""
        logits = outputs["logits"]
        return _losses.classification(logits, _losses.values(targets, "label", logits))

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far the shares of the labels are from the teacher's."""
        return _losses.divergence(outputs["logits"], teacher["logits"], temperature)

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Compare labels: by number where the row has a number, by name where it has a name."""
        return self.score_labels(rows, predictions)

    def score_labels(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Compare one label for each row."""
        names = {p["label"]: p["name"] for p in predictions.values() if p.get("name") is not None}
        golds = _golds(rows, predictions, names)
        known = dict.fromkeys(golds)
        positive = {kind: self._positive(kind, names, known) for kind in (int, str)}
        scored = []
        for row, gold in zip(rows, golds, strict=True):
            predicted = _predicted(row["id"], gold, predictions.get(row["id"], {}), known)
            entry = {"id": row["id"], "gold": gold, "predicted": predicted, "accuracy": float(gold == predicted)}
            if self.average == "binary":
                wanted = positive[type(gold)]
                entry["outcome"] = _outcome(gold == wanted, predicted is not None and predicted == wanted)
            scored.append(entry)
        return Score(
            {name: self.aggregate_labels(scored, name) for name in LabelTask.metrics},
            scored,
            _tokens.counts(rows, predictions),
            constants("label", golds, (entry["predicted"] for entry in scored)),
        )

    def _positive(self, kind: type, names: Mapping[int, str], golds: Iterable[Any]) -> int | str | None:
        """Say the positive label as gold labels say it; None when no prediction tells its name (so none is of it)."""
        if isinstance(self.positive, str):
            named = match(self.positive, [*names.values(), *(gold for gold in golds if isinstance(gold, str))])
            if kind is str:
                return named
            return next((number for number, name in names.items() if name == named), None)
        if kind is int:
            return self.positive
        if isinstance(self.labels, tuple):
            named = self.labels[self.positive] if 0 <= self.positive < len(self.labels) else None
            return None if named is None else match(named, names.values()) or named
        return names.get(self.positive)

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute a metric; NaN when there are no rows. A ratio of nothing to nothing is 0, as scikit-learn has it."""
        return self.aggregate_labels(rows, metric)

    def aggregate_labels(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute a metric of one label for each row."""
        if not rows:
            return float("nan")
        if metric == "accuracy":
            return float(sum(row["accuracy"] for row in rows) / len(rows))
        if metric == "f1" and self.average == "binary":
            met = Counter(row["outcome"] for row in rows)
            return _ratio(2 * met["tp"], 2 * met["tp"] + met["fp"] + met["fn"])
        pairs = Counter((row["gold"], row["predicted"]) for row in rows)
        gold: Counter[Any] = Counter()
        predicted: Counter[Any] = Counter()
        for (wanted, got), times in pairs.items():
            gold[wanted] += times
            predicted[got] += times
        if metric == "f1":
            known = [label for label in gold | predicted if label is not None]
            return sum(_ratio(2 * pairs[x, x], gold[x] + predicted[x]) for x in known) / len(known)
        return _matthews(len(rows), sum(pairs[x, x] for x in gold), gold, predicted)


def logits_of(answer: Arrays, names: Names) -> np.ndarray[Any, Any]:
    """Take the logits of one feature: one for each label.

    Raises:
        RecipeError: the model has another number of outputs than its configuration names.
    """
    import numpy as np

    logits = answer["logits"].astype(np.float64)
    if logits.shape[-1] != len(names.own):
        raise RecipeError(
            f"the model gives {logits.shape[-1]} outputs, and config.json (id2label) names {len(names.own)}; correct it"
        )
    return logits


def _gold(row: Row, names: Names) -> dict[str, Any]:
    """Return a row's own label as the model has it, where the row has it otherwise: a name for a text."""
    label = row.get("label")
    gold = names.name(label) if isinstance(label, str) else None if label is None else names.resolve(label)
    return {} if gold is None or (type(gold) is type(label) and gold == label) else {"gold": gold}


def _golds(rows: Sequence[Row], predictions: Mapping[str, Prediction], names: Mapping[int, str]) -> list[Any]:
    """List the rows' labels as the model has them, which predictions tell; of unanswered rows as those of others do.

    Raises:
        RecipeError: a row has none.
    """
    told: dict[Any, Any] = {}
    for row in rows:
        if "label" not in row:
            raise _tokens.unlabelled(row, "label")
        if "gold" in (prediction := predictions.get(row["id"], {})):
            told[row["label"]] = prediction["gold"]
    found = [told.get(row["label"], row["label"]) for row in rows]
    mixed = len({type(gold) for gold in found}) > 1
    return [names.get(gold, gold) if mixed and isinstance(gold, int) else gold for gold in found]


def _largest(row: Row, logits: np.ndarray[Any, Any], names: Names) -> dict[str, Any]:
    import numpy as np

    if not np.isfinite(logits).all():
        return {"id": row["id"], "label": None, "name": None, "nan": True}
    best = int(np.argmax(logits))
    share = 1 / float(np.exp(logits - logits[best]).sum())
    return {"id": row["id"], "label": best, "name": names.own[best], "score": round(share, 6)}


def _predicted(row: str, gold: Any, prediction: Prediction, golds: Iterable[Any]) -> int | str | None:
    """Take a prediction's label in the kind, number or name, of the row's; None for no prediction or NaN."""
    wanted = type(gold)
    if not prediction or prediction.get("nan"):
        return None
    for key in ("label", "name"):
        found: int | str | None = prediction.get(key)
        if isinstance(found, str) and wanted is str:
            # A prediction made elsewhere has a name as its label, and may spell it in another way.
            return (match(found, golds) or found) if key == "label" else found
        if type(found) is wanted:
            return found
    have, need = ("numbers", "names") if wanted is str else ("names", "numbers")
    raise RecipeError(
        f"prediction {row}: labels are {have}, those of the rows {need}; name the rows' with the task's `labels`"
    )


def _outcome(wanted: bool, got: bool) -> str:
    return {(True, True): "tp", (True, False): "fn", (False, True): "fp", (False, False): "tn"}[wanted, got]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _matthews(count: int, right: int, gold: Counter[Any], predicted: Counter[Any]) -> float:
    """Compute Matthews' correlation for any number of labels (R_K; Gorodkin 2004); 0 when one side never varies."""
    spread = count * count - sum(n * n for n in gold.values()), count * count - sum(n * n for n in predicted.values())
    both = right * count - sum(times * predicted[label] for label, times in gold.items())
    return _ratio(both, math.sqrt(spread[0] * spread[1]))
