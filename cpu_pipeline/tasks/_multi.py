"""Any number of labels for each row: how rows write them, which ones a model chooses, and their scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Prediction, Row, Score
from cpu_pipeline.tasks._constant import constants
from cpu_pipeline.tasks._names import Names, match
from cpu_pipeline.tasks._regression import short, sigmoid

if TYPE_CHECKING:
    import numpy as np

METRICS = ("f1_micro", "f1_macro", "exact_match", "mAP")
PER_LABEL = "f1:"
"""What the name of a label's own F1 begins with."""
Threshold = float | tuple[float, ...] | dict[str, float]
USUAL = 0.5
"""Threshold of a label that the option does not name."""


def label(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Take a raw row's labels as a list of names or of numbers, or as a vector of 0 and 1; nothing where it has none.

    A text that is a list in JSON, as a cell of a CSV may be, is read as that list; any other value is a list of one.

    Raises:
        ValueError: an entry is no name, number or truth value.
    """
    said = raw.get("label")
    if said is None:
        return {}
    if isinstance(said, str) and said.lstrip().startswith("["):
        if not is_list(said):
            raise ValueError(f"`label` is {said!r}, which is no list in JSON")
        said = json.loads(said)
    found = said if isinstance(said, list) else [said]
    if strange := [entry for entry in found if type(entry) not in (str, int, float, bool)]:
        raise ValueError(f"`label` has {strange[0]!r}, which is neither a name nor a number")
    if any(isinstance(entry, float) and not entry.is_integer() for entry in found):
        raise ValueError(f"`label` is {said!r}: entries are names, numbers from 0, or 0 and 1")
    # A vector says so by its truth values or decimals; 0 and 1 alone are told from numbers of labels by their count.
    vector = bool(found) and all(type(entry) in (bool, float) for entry in found)
    return {"label": [float(entry) for entry in found] if vector else found}


def is_list(said: object) -> bool:
    """Say whether a label is a list, or a text that is one in JSON."""
    if not isinstance(said, str):
        return isinstance(said, list)
    try:
        return isinstance(json.loads(said), list)
    except ValueError:
        return False


def chosen(row: Row, names: Names, vector: bool | None, rows: Sequence[Row] = ()) -> list[str]:
    """List the names of a row's labels, in the order of the model's outputs.

    Args:
        row: the row.
        names: the model's names.
        vector: whether lists of numbers have 0 or 1 for each output; None where they tell it themselves.
        rows: all rows, whose labels a message lists.

    Raises:
        RecipeError: a label is not one of the model's, or it is unclear whether a list is numbers or a vector.
    """
    said = _entries(row)
    if _is_vector(row["id"], said, len(names.own), vector):
        return [name for name, on in zip(names.own, said, strict=True) if on]
    found = set()
    for entry in said:
        if (name := names.name(entry)) is None:
            raise names.refuse(row["id"], entry, [other for each in rows or (row,) for other in _entries(each)])
        found.add(name)
    return [name for name in names.own if name in found]


def _entries(row: Row) -> list[Any]:
    """List what a row's label has; nothing where it has none."""
    said = row.get("label", [])
    return said if isinstance(said, list) else [said]


def _is_vector(row: object, said: Sequence[Any], count: int, vector: bool | None) -> bool:
    """Say whether a list has one entry for each output: 0 or 1."""
    binary = len(said) == count and all(not isinstance(entry, str) and entry in (0, 1) for entry in said)
    decimal = bool(said) and all(isinstance(entry, float) for entry in said)
    if vector or (decimal and vector is None):
        if not binary:
            raise RecipeError(f"row {row}: `label` is {list(said)}; a vector has 0 or 1 for each of {count} outputs")
        return True
    if vector is None and binary and len(set(said)) == len(said):
        raise RecipeError(
            f"row {row}: `label` is {list(said)}: numbers of labels, or a vector of 0 and 1? "
            "Say it with the task's option `vector: true` or `vector: false`"
        )
    return vector is None and binary


def thresholds(names: Names, option: Threshold) -> list[float]:
    """List the threshold of each output.

    Raises:
        RecipeError: the option names an output that the model lacks, or has another number of them.
    """
    if isinstance(option, dict):
        found = dict.fromkeys(names.own, USUAL)
        for label, value in option.items():
            if (name := match(label, names.own)) is None:
                raise RecipeError(f"threshold: {label!r} is not one of the model's labels: {', '.join(names.own)}")
            found[name] = value
        return list(found.values())
    if isinstance(option, tuple):
        if len(option) != len(names.own):
            raise RecipeError(f"threshold: {len(option)} numbers, and the model has {len(names.own)} labels")
        return list(option)
    return [option] * len(names.own)


def decode(row: Row, logits: np.ndarray[Any, Any], names: Names, limits: Sequence[float]) -> Prediction:
    """Choose the labels whose sigmoid is at least their threshold; `scores` has every label's."""
    import numpy as np

    if not np.isfinite(logits).all():
        return {"id": row["id"], "labels": None, "nan": True}
    scores = {name: short(float(score)) for name, score in zip(names.own, sigmoid(logits), strict=True)}
    found = [name for name, limit in zip(names.own, limits, strict=True) if scores[name] >= limit]
    return {"id": row["id"], "labels": found, "scores": scores}


def gold(row: Row, names: Names, vector: bool | None) -> dict[str, Any]:
    """Return a row's own labels in the model's names, where the row has them otherwise."""
    if "label" not in row:
        return {}
    found = chosen(row, names, vector)
    return {} if found == row["label"] else {"gold": found}


def choice(limits: Sequence[float]) -> Callable[[np.ndarray[Any, Any]], Any]:
    """Return the function that says which labels logits choose, as one value: a text of 0 and 1."""

    def choose(logits: np.ndarray[Any, Any]) -> str:
        return "".join("01"[bool(value >= limit)] for value, limit in zip(sigmoid(logits), limits, strict=True))

    return choose


def score(rows: Sequence[Row], predictions: Mapping[str, Prediction], vector: bool | None) -> Score:
    """Compare sets of labels, and the order in which scores put the rows; a row without an answer has no label.

    Predictions made elsewhere may have no scores, and spell names in another way.

    Raises:
        RecipeError: a row has no labels, or they are numbers and the predictions tell no names.
    """
    names = next((list(p["scores"]) for p in predictions.values() if p.get("scores")), [])
    golds = [_gold(row, predictions.get(row["id"], {}), names, vector) for row in rows]
    spelled = names or sorted({name for gold in golds for name in gold})
    scored = []
    for row, gold in zip(rows, golds, strict=True):
        prediction = predictions.get(row["id"], {})
        found = _found(prediction, spelled)
        right = found is not None and set(found) == set(gold)
        entry = {"id": row["id"], "gold": sorted(gold), "predicted": sorted(found or ()), "exact_match": float(right)}
        scored.append({**entry, "scores": prediction.get("scores")})
    known = sorted({*names, *(name for e in scored for name in (*e["gold"], *e["predicted"]))})
    table = Table.of(scored, known)
    wanted = [*METRICS[: 4 if names else 3], *(PER_LABEL + name for name in names or known)]
    return Score(
        {name: table.metric(name) for name in wanted},
        scored,
        _tokens.counts(rows, predictions),
        constants("labels", (e["gold"] for e in scored), (p.get("labels") for p in predictions.values())),
        "Multi-label: each answer is a set of labels, those with a score of at least the threshold.",
    )


def _found(prediction: Prediction, names: Sequence[str]) -> list[str] | None:
    """List the labels of a prediction; None where there is none."""
    found = prediction.get("labels")
    if found is None:
        return None
    if not (isinstance(found, list) and all(isinstance(name, str) for name in found)):
        raise RecipeError(f"prediction {prediction['id']}: `labels` is {found!r}, not a list of names")
    return [match(name, names) or name for name in found]


def _gold(row: Row, prediction: Prediction, names: Sequence[str], vector: bool | None) -> list[str]:
    """List the names of a row's labels, as its prediction tells them, or as they fit the names of others."""
    if "label" not in row:
        raise _tokens.unlabelled(row, "label")
    if "gold" in prediction:
        return list(prediction["gold"])
    said = _entries(row)
    if all(isinstance(entry, str) for entry in said):
        return [match(entry, names) or entry for entry in said]
    if not names:
        raise RecipeError(
            f"row {row['id']}: labels are numbers, and no prediction has `scores` that name them; write names"
        )
    return chosen(row, Names(tuple(names), True, {}), vector)


class Table:
    """Labels and scores of rows as arrays of shape (rows, labels), from which any rows are drawn quickly."""

    def __init__(self, names: Sequence[str], *columns: Any) -> None:
        self.names = names
        self.gold, self.predicted, self.scores, self.right = self.columns = columns

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> Table:
        """Make the table of entries of `Score.rows`; by default of all labels that they name."""
        import numpy as np

        if names is None:
            names = sorted({n for row in rows for n in (*row["gold"], *row["predicted"], *(row["scores"] or ()))})
        gold, predicted = (
            np.array([[name in set(row[key]) for name in names] for row in rows], dtype=bool).reshape(-1, len(names))
            for key in ("gold", "predicted")
        )
        # A row without an answer comes after all others, whichever label they are ordered by.
        scores = [[(row["scores"] or {}).get(name, -1.0) for name in names] for row in rows]
        right = np.array([row["exact_match"] for row in rows], dtype=np.float64)
        return cls(names, gold, predicted, np.array(scores, dtype=np.float64).reshape(-1, len(names)), right)

    def __len__(self) -> int:
        return len(self.gold)

    def take(self, positions: np.ndarray[Any, Any]) -> Table:
        """Draw rows by position."""
        return Table(self.names, *(column[positions] for column in self.columns))

    def metric(self, name: str) -> float:
        """Compute a metric as scikit-learn does; NaN without rows. A ratio of nothing to nothing is 0."""
        if not len(self):
            return math.nan
        if name == "exact_match":
            return float(self.right.mean())
        if name.startswith(PER_LABEL):
            wanted = name.removeprefix(PER_LABEL)
            return float(self._f1()[self.names.index(wanted)]) if wanted in self.names else math.nan
        if name == "mAP":
            return float(self._precision())
        return float(self._f1().mean()) if name == "f1_macro" else float(self._f1(whole=True))

    def _f1(self, whole: bool = False) -> Any:
        """Compute F1 of each label, or of all decisions together."""
        import numpy as np

        axis = None if whole else 0
        hits = (self.gold & self.predicted).sum(axis=axis)
        total = self.gold.sum(axis=axis) + self.predicted.sum(axis=axis)
        return np.where(total > 0, 2 * hits / np.maximum(total, 1), 0.0)

    def _precision(self) -> Any:
        """Compute the mean over labels of average precision: of each threshold, precision by the recall it adds.

        A label that no row has counts 0, as in scikit-learn.
        """
        import numpy as np

        order = np.argsort(-self.scores, axis=0, kind="stable")
        scores, gold = (np.take_along_axis(array, order, axis=0) for array in (self.scores, self.gold))
        hits = gold.cumsum(axis=0)
        # Rows of one score come in together: only the last of them is a threshold.
        last = np.vstack([scores[1:] != scores[:-1], np.ones((1, scores.shape[1]), dtype=bool)])
        found = []
        for column in range(scores.shape[1]):
            places = np.flatnonzero(last[:, column])
            at = hits[places, column]
            precision, new = at / (places + 1), np.diff(at, prepend=0)
            found.append(float((precision * new).sum() / max(at[-1], 1)))
        return np.mean(found)
