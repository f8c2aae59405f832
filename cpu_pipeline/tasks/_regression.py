"""A number for each row: what the rows say, what the model answers, and the scores of a regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Prediction, Row, Score
from cpu_pipeline.tasks._constant import constants

if TYPE_CHECKING:
    import numpy as np

METRICS = ("r2", "pearson", "spearman", "mse", "rmse", "mae")
"""R² first: it has one scale for all data, and sees an answer that is shifted or scaled, which correlations do not."""
ERRORS = frozenset({"mse", "rmse", "mae"})
"""Metrics of which less is better."""
Activation = Literal["none", "sigmoid"]
DIGITS = 9
"""Significant digits of an answer."""


def label(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Take a raw row's number; nothing where it has none.

    Raises:
        ValueError: it is no finite number.
    """
    said = raw.get("label")
    if said is None:
        return {}
    found = number(said)
    if found is None:
        raise ValueError(f"`label` is {said!r}, not a finite number; a regression needs one")
    return {"label": found}


def number(said: Any) -> float | None:
    """Read a finite number, which may be written as text; None for anything else."""
    if type(said) not in (int, float, str):
        return None
    try:
        found = float(said)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def activation(model: Path) -> Activation:
    """Read what sentence-transformers applies to the number of a cross-encoder; `none` where config.json names nothing.

    Raises:
        RecipeError: it is neither a sigmoid nor nothing.
    """
    config = _tokens.read_config(model)
    nested = config.get("sentence_transformers")
    said = nested.get("activation_fn") if isinstance(nested, Mapping) else None
    said = said or config.get("sbert_ce_default_activation_function")
    name = str(said).rpartition(".")[2] if said else "Identity"
    if name not in ("Identity", "Sigmoid"):
        raise RecipeError(
            f"config.json: the model's number goes through {said}; set the task's `activation` to none or sigmoid"
        )
    return "sigmoid" if name == "Sigmoid" else "none"


def decode(row: Row, logits: np.ndarray[Any, Any], applied: Activation) -> Prediction:
    """Turn the one output for a row into a prediction with `value`."""
    import numpy as np

    if not np.isfinite(logits).all():
        return {"id": row["id"], "value": None, "nan": True}
    value = logits if applied == "none" else sigmoid(logits)
    return {"id": row["id"], "value": short(float(value[0]))}


def sigmoid(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute 1 / (1 + exp(-x)) without an overflow."""
    import numpy as np

    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small))


def short(value: float) -> float:
    """Cut a number to the digits that an answer has."""
    return float(f"{value:.{DIGITS}g}")


def score(rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
    """Compare numbers; a row without a finite answer is left out, and counted under `missing` or `nan`.

    Raises:
        RecipeError: a row has no number, or a prediction one that is not finite.
    """
    scored = []
    for row in rows:
        gold = number(row.get("label"))
        if gold is None:
            raise _tokens.unlabelled(row, "label")
        prediction = predictions.get(row["id"], {})
        said = prediction.get("value", prediction.get("label"))
        value = number(said)
        if value is None and said is not None:
            raise RecipeError(f"prediction {row['id']}: `value` is {said!r}, not a finite number")
        entry = {"id": row["id"], "gold": gold, "value": value}
        if value is not None:
            entry |= {"mse": (value - gold) ** 2, "mae": abs(value - gold)}
        scored.append(entry)
    return Score(
        {name: aggregate(scored, name) for name in METRICS},
        scored,
        _tokens.counts(rows, predictions),
        constants("label", (e["gold"] for e in scored), (e["value"] for e in scored)),
        "Regression: each answer is a number.",
    )


def aggregate(rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """Compute a metric from entries of `Score.rows`; NaN where it is not defined: no rows, or a side that never varies.

    R² is 1 less the squared errors by the squared distances from the mean gold value, as scikit-learn's r2_score.
    """
    import numpy as np

    pairs = np.array([(row["gold"], row["value"]) for row in rows if row["value"] is not None], dtype=np.float64)
    if len(pairs) == 0:
        return math.nan
    gold, errors = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    if metric == "mae":
        return float(np.abs(errors).mean())
    squared = float((errors**2).mean())
    if metric in ("mse", "rmse"):
        return squared if metric == "mse" else math.sqrt(squared)
    if metric == "r2":
        spread = float(((gold - gold.mean()) ** 2).mean())
        return 1 - squared / spread if len(pairs) > 1 and not (gold == gold[0]).all() else math.nan
    return correlation(pairs, metric)


def correlation(pairs: np.ndarray[Any, Any], metric: str) -> float:
    """Compute Pearson's correlation of two columns, or Spearman's (that of the ranks); NaN when one never varies."""
    if len(pairs) < 2 or (pairs == pairs[0]).all(axis=0).any():
        return math.nan
    if metric == "spearman":
        from scipy.stats import rankdata

        pairs = rankdata(pairs, axis=0)
    centred = pairs - pairs.mean(axis=0)
    # Not by a product of matrices: its sums are those of a BLAS, and follow the number of threads.
    both, one, other = ((centred[:, i] * centred[:, j]).sum() for i, j in ((0, 1), (0, 0), (1, 1)))
    return float(both / (math.sqrt(one * other)))
