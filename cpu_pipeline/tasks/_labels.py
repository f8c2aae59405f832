"""What tasks that give each row one label have in common: labels of rows, the answer, the scores."""

from __future__ import annotations

import math
from abc import ABC
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Task

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays


class LabelTask(Task, ABC):
    """Choose one label for each row, by the largest of the model's `logits`; a row has one feature."""

    labels: tuple[str, ...] | None = None
    """Names of the data's label numbers, in order, when the model numbers them differently: then names are compared."""
    average: Literal["binary", "macro"] = "macro"
    """F1 of the positive label alone, or the plain mean of every label's."""
    positive: int | str = 1
    """The label, by number or name, that `average: binary` is about."""

    outputs = ("logits",)
    per_token = False
    kinds: ClassVar = {"label": "label"}
    metrics = ("accuracy", "f1", "matthews")
    gold = "label"

    def label(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take a raw row's label, a number from 0 or a name of the model's; nothing where it has none.

        Raises:
            ValueError: it is something else, or has no name in the task's `labels`.
        """
        label = raw.get("label")
        if label is None:
            return {}
        if type(label) not in (int, str):
            raise ValueError(f"`label` is {type(label).__name__}, not a number from 0 or a name")
        if isinstance(label, int) and label < 0:
            raise ValueError(f"`label` is {label}: this split is not labelled")
        if isinstance(label, int) and self.labels is not None:
            if label >= len(self.labels):
                raise ValueError(f"`label` is {label}, but the task's `labels` are {len(self.labels)}")
            label = self.labels[label]
        return {"label": label}

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that the rows' labels are the model's."""
        check_labels(rows, model)

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Take the label with the largest logit (of equals the first), by number and name, with its softmax."""
        import numpy as np

        names = _tokens.labels(model)
        predictions: list[Prediction] = []
        for feature, answer in zip(features, outputs, strict=True):
            logits = answer["logits"].astype(np.float64)
            prediction: dict[str, Any] = {"id": rows[feature.row]["id"], "label": None, "name": None, "nan": True}
            if np.isfinite(logits).all():
                best = int(np.argmax(logits))
                share = 1 / float(np.exp(logits - logits[best]).sum())
                prediction = {"id": prediction["id"], "label": best, "name": names[best], "score": round(share, 6)}
            if (gold := meant(rows[feature.row].get("label"), names)) != rows[feature.row].get("label"):
                prediction["gold"] = gold
            predictions.append(prediction)
        return predictions

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Compare labels: by number where the row has a number, by name where it has a name."""
        names = {p["label"]: p["name"] for p in predictions.values() if p.get("name") is not None}
        scored = []
        for row in rows:
            if "label" not in row:
                raise _tokens.unlabelled(row, "label")
            prediction = predictions.get(row["id"], {})
            gold = prediction.get("gold", row["label"])
            predicted = _predicted({**row, "label": gold}, prediction)
            entry = {"id": row["id"], "gold": gold, "predicted": predicted, "accuracy": float(gold == predicted)}
            if self.average == "binary":
                positive = self._positive(type(gold), names)
                entry["outcome"] = _outcome(gold == positive, predicted is not None and predicted == positive)
            scored.append(entry)
        metrics = {name: self.aggregate(scored, name) for name in self.metrics}
        return Score(metrics, scored, _tokens.counts(rows, predictions))

    def _positive(self, kind: type, names: Mapping[int, str]) -> int | str | None:
        """Say the positive label as gold labels say it; None when no prediction tells its name (so none is of it)."""
        if isinstance(self.positive, kind):
            return self.positive
        if isinstance(self.positive, str):
            return next((number for number, name in names.items() if name == self.positive), None)
        if self.labels is not None:
            return self.labels[self.positive] if 0 <= self.positive < len(self.labels) else None
        return names.get(self.positive)

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute a metric; NaN when there are no rows. A ratio of nothing to nothing is 0, as scikit-learn has it."""
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


def check_labels(rows: Sequence[Row], model: Path) -> None:
    """Check that the rows' labels are the model's.

    Raises:
        RecipeError: one is not.
    """
    names = _tokens.labels(model)
    for row in rows:
        _check_label(row, names)


def meant(label: Any, names: Sequence[str]) -> Any:
    """Say what a label is: a name of the model's first, then a number that is written as text."""
    digits = isinstance(label, str) and label not in names and label.isascii() and label.isdecimal()
    return int(label) if digits else label


def _check_label(row: Row, names: Sequence[str]) -> None:
    label = meant(row.get("label"), names)
    if isinstance(label, str) and label not in names:
        raise RecipeError(f"row {row['id']}: label {label!r} is not one of the model's: {', '.join(names)}")
    if isinstance(label, int) and label >= len(names):
        raise RecipeError(f"row {row['id']}: label {label}, but the model has {len(names)} labels")


def _predicted(row: Row, prediction: Prediction) -> int | str | None:
    """Take a prediction's label in the kind, number or name, of the row's; None for no prediction or NaN."""
    wanted = type(row["label"])
    if not prediction or prediction.get("nan"):
        return None
    for key in ("label", "name"):
        if type(prediction.get(key)) is wanted:
            return prediction[key]  # type: ignore[no-any-return]  # JSON
    have, need = ("numbers", "names") if wanted is str else ("names", "numbers")
    raise RecipeError(
        f"prediction {row['id']}: labels are {have}, those of the rows {need}; name the rows' with the task's `labels`"
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
