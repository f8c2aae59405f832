"""What a sentence or a pair of sentences is: one label, any number of labels, or a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _losses, _multi, _regression, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Target
from cpu_pipeline.tasks._labels import LabelTask, logits_of
from cpu_pipeline.tasks._names import Names, duplicates

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays

Kind = Literal["single", "multi", "regression"]
PROBLEMS: Mapping[str, Kind] = {
    "single_label_classification": "single",
    "multi_label_classification": "multi",
    "regression": "regression",
}
"""transformers' `problem_type` -> kind."""
OPTIONS: Mapping[Kind, frozenset[str]] = {
    "single": frozenset({"average", "positive", "labels"}),
    "multi": frozenset({"threshold", "vector", "labels"}),
    "regression": frozenset({"activation"}),
}
"""Kind -> options that are about it."""


class TextClassification(LabelTask):
    """Choose one label, or any number of labels, for a sentence or a pair, or give it a number."""

    kind: Kind | None = None
    """What an answer is: one label, any number of labels (multi), or a number (regression). By default the
    problem_type of config.json, else regression for one output, else one label."""
    threshold: _multi.Threshold = 0.5
    """Of kind multi: least score (sigmoid) of a label that is chosen; one number, one for each output, or by label."""
    vector: bool | None = None
    """Of kind multi: whether lists of numbers have 0 or 1 for each output; needed where both readings are possible."""
    activation: _regression.Activation | None = None
    """Of kind regression: what the model's number goes through; by default that of a cross-encoder's config.json."""
    max_seq_length: int = Field(default=128, ge=8)
    """Tokens to use of each row; of a pair the longer sentence is cut first."""

    version = 2
    packages = ("tokenizers", "numpy", "scipy")
    auto_class = "AutoModelForSequenceClassification"
    columns: ClassVar = {"text": True, "text_pair": False, "label": False}
    metrics = (*LabelTask.metrics, *_multi.METRICS, *_regression.METRICS)
    row_means: ClassVar = frozenset({"accuracy", "exact_match"})
    lower_is_better: ClassVar = _regression.ERRORS
    pipeline_tag = "text-classification"

    @field_validator("threshold")
    @classmethod
    def _is_a_share(cls, value: _multi.Threshold) -> _multi.Threshold:
        limits = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        if not all(0 < limit < 1 for limit in limits):
            raise ValueError("a threshold is between 0 and 1")
        return value

    @model_validator(mode="after")
    def _options_are_of_its_kind(self) -> Self:
        if self.kind is not None and (wrong := self._misplaced(self.kind)):
            raise ValueError(f"`{wrong}` is of another kind than `kind: {self.kind}`; leave one out")
        return self

    def _misplaced(self, kind: Kind) -> str | None:
        """Name an option that is not as it was, and of other kinds alone."""
        others = frozenset().union(*OPTIONS.values()) - OPTIONS[kind]
        fields = type(self).model_fields
        return next((name for name in sorted(others) if getattr(self, name) != fields[name].default), None)

    def kind_of(self, model: Path) -> Kind:
        """Say what an answer of the model in a directory is.

        Raises:
            RecipeError: option and config.json contradict each other, or the number of outputs.
        """
        outputs, problem = len(_tokens.labels(model)), _tokens.read_config(model).get("problem_type")
        said = PROBLEMS.get(str(problem))
        if self.kind is not None and said is not None and self.kind != said:
            raise RecipeError(f"`kind: {self.kind}`, but config.json says `problem_type: {problem}`; leave `kind` out")
        kind = self.kind or said or ("regression" if outputs == 1 else "single")
        if kind == "regression" and outputs != 1:
            raise RecipeError(
                f"config.json: a regression with {outputs} outputs; one is scored here: set another `kind`"
            )
        if wrong := self._misplaced(kind):
            raise RecipeError(
                f"the option `{wrong}` does not fit the model, which is of kind {kind} (config.json); leave it out"
            )
        return kind

    def metrics_of(self, model: Path | None = None) -> tuple[str, ...]:
        """List the metrics of its kind, with the labels' own where the model is known."""
        kind = self.kind if model is None else self.kind_of(model)
        if kind == "multi" and model is not None:
            return (*_multi.METRICS, *(_multi.PER_LABEL + name for name in Names.read(model, self.labels).own))
        known = {"single": LabelTask.metrics, "multi": _multi.METRICS, "regression": _regression.METRICS}
        return self.metrics if kind is None else known[kind]

    def has_metric(self, name: str) -> bool:
        """Say whether it may report a metric; a label's own F1 has the name of the label."""
        return name in self.metrics_of() or (name.startswith(_multi.PER_LABEL) and self.kind in (None, "multi"))

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take text and, where there are any, text_pair and label: a name, a number, or a list of either."""
        row = {**_tokens.named(raw), "text": _tokens.text(raw, "text")}
        if raw.get("text_pair") is not None:
            row["text_pair"] = _tokens.text(raw, "text_pair")
        return {**row, **self._label(raw)}

    def _label(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        said = raw.get("label")
        if self.kind == "regression":
            return _regression.label(raw)
        if self.kind == "multi" or (self.kind is None and _multi.is_list(said)):
            return _multi.label(raw)
        if self.kind is None and isinstance(said, float) and math.isfinite(said) and not said.is_integer():
            return {"label": said}
        if self.kind is None and isinstance(said, (int, float)) and said < 0:
            raise ValueError(
                f"`label` is {said}: this split is not labelled, or a regression: then set `kind: regression`"
            )
        return self.label(raw)

    def check_names(self, model: Path) -> None:
        """Check that the number and the names of the model's outputs fit the options."""
        kind = self.kind_of(model)
        if kind == "regression":
            self._applied(model)
        elif kind == "single":
            super().check_names(model)
        else:
            names = Names.read(model, self.labels)
            if twice := duplicates(names.own):
                raise RecipeError(f"config.json: two outputs are called {twice[0]}; correct id2label")
            _multi.thresholds(names, self.threshold)

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that the rows' labels are the model's, and of its kind."""
        self.check_names(model)
        kind = self.kind_of(model)
        labelled = [row for row in rows if "label" in row]
        if kind == "multi":
            names = Names.read(model, self.labels)
            for row in labelled:
                _multi.chosen(row, names, self.vector, labelled)
            return
        for row in labelled:
            _fits_kind(row, kind, model)
        if kind == "single":
            super().check_rows(rows, model)

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise each row into one feature.

        Raises:
            RecipeError: a row's label is not one of the model's, or of another kind, or it has no token.
        """
        self.check_rows(rows, model)
        tokenizer = _tokens.tokenizer(model, _tokens.longest(self, model))
        features = []
        for first in range(0, len(rows), _tokens.CHUNK):
            chunk = rows[first : first + _tokens.CHUNK]
            texts = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in chunk]
            encoded = enumerate(tokenizer.encode_batch(texts), first)
            features += [Feature(number, _tokens.inputs(encoding, model)) for number, encoding in encoded]
        _tokens.check_filled(rows, features)
        return features

    def choice(self, model: Path) -> Callable[[Any], Any] | None:
        """Return what says which label, or which set of labels, an output chooses; None for a regression."""
        kind = self.kind_of(model)
        if kind == "regression":
            return None
        if kind == "multi":
            return _multi.choice(_multi.thresholds(Names.read(model, self.labels), self.threshold))
        return super().choice(model)

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Take the label with the largest logit, every label whose sigmoid is large enough, or the number.

        `gold` is what the row says, in the model's names, where the row has it otherwise.
        """
        kind = self.kind_of(model)
        if kind == "single":
            return super().decode(rows, features, outputs, model)
        names = Names.read(model, self.labels)
        answers = [
            (rows[feature.row], logits_of(answer, names)) for feature, answer in zip(features, outputs, strict=True)
        ]
        if kind == "regression":
            applied = self._applied(model)
            return [_regression.decode(row, logits, applied) for row, logits in answers]
        limits = _multi.thresholds(names, self.threshold)
        return [
            {**_multi.decode(row, logits, names, limits), **_multi.gold(row, names, self.vector)}
            for row, logits in answers
        ]

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Give what each labelled row says: the number of its label, 0 or 1 for each label, or a number."""
        kind = self.kind_of(model)
        if kind == "single":
            return super().targets(rows, features, model)
        labelled = [(i, rows[f.row]) for i, f in enumerate(features) if "label" in rows[f.row]]
        if kind == "regression":
            return [Target((i,), {"label": _regression.number(row["label"])}) for i, row in labelled]
        names = Names.read(model, self.labels)
        chosen = [(i, _multi.chosen(row, names, self.vector, rows)) for i, row in labelled]
        return [Target((i,), {"label": [float(name in said) for name in names.own]}) for i, said in chosen]

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Compute the cross-entropy with the labels, or the squared error of numbers."""
        kind, logits = self.kind_of(model), outputs["logits"]
        if kind == "single":
            return super().loss(outputs, mask, features, targets, model)
        wanted = _losses.values(targets, "label", logits, "float32")
        if kind == "multi":
            return _losses.several(logits, wanted)
        said = logits[:, 0].sigmoid() if self._applied(model) == "sigmoid" else logits[:, 0]
        return _losses.squared(said, wanted)

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far shares, or numbers, are from the teacher's."""
        kind = self.kind_of(model)
        if kind == "multi":
            return _losses.several(outputs["logits"], teacher["logits"].sigmoid())
        if kind == "regression":
            return _losses.squared(outputs["logits"], teacher["logits"])
        return super().distance(outputs, teacher, mask, features, temperature, model)

    def _applied(self, model: Path) -> _regression.Activation:
        return self.activation or _regression.activation(model)

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score as the kind asks for; without the option, the predictions tell it."""
        kind = self.kind or _kind_of_answers(rows, predictions)
        if kind == "regression":
            return _regression.score(rows, predictions)
        return _multi.score(rows, predictions, self.vector) if kind == "multi" else self.score_labels(rows, predictions)

    def packed(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Bring sets of labels into arrays; resampling is slow without."""
        return _multi.Table.of(rows) if rows and "scores" in rows[0] else None

    def aggregate(self, rows: Any, metric: str) -> float:
        """Compute a metric of entries of `Score.rows`, or of what `packed` made of them; each belongs to one kind."""
        if metric in LabelTask.metrics:
            return self.aggregate_labels(rows, metric)
        if metric in _regression.METRICS:
            return _regression.aggregate(rows, metric)
        return (rows if isinstance(rows, _multi.Table) else _multi.Table.of(rows)).metric(metric)


def _fits_kind(row: Row, kind: Kind, model: Path) -> None:
    """Check that a label is one label, or a number.

    Raises:
        RecipeError: it is something else.
    """
    label = row["label"]
    if isinstance(label, list):
        raise RecipeError(
            f"row {row['id']}: `label` is a list, and the model is of kind {kind}; "
            "a model of several labels has `problem_type: multi_label_classification` in config.json, or the task's "
            "option `kind: multi`"
        )
    if kind == "regression" and _regression.number(label) is None:
        raise RecipeError(
            f"row {row['id']}: `label` is {label!r}, and the model has one output, a number; give the rows numbers"
        )
    if kind == "single" and isinstance(label, float):
        raise RecipeError(
            f"row {row['id']}: `label` is {label}, no number of a label; the model chooses among "
            f"{len(_tokens.labels(model))} labels (for a regression, the model needs one output)"
        )


def _kind_of_answers(rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Kind:
    """Say of which kind predictions are; where there are none, rows."""
    for kind, mark in (("regression", "value"), ("multi", "labels")):
        if any(mark in prediction for prediction in predictions.values()):
            return kind  # type: ignore[return-value]  # one of the two above
    labels = [row.get("label") for row in rows]
    if any(isinstance(label, float) for label in labels):
        return "regression"
    return "multi" if any(isinstance(label, list) for label in labels) else "single"
