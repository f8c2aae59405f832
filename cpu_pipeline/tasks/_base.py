"""The contract every task keeps: what goes in, what comes out, how it is scored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from cpu_pipeline.core.cells import Kind
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._feature import SHAPES, Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, InputKind, Session

__all__ = ["Feature", "Prediction", "Row", "Score", "Target", "Task"]

Row = Mapping[str, Any]
"""One line of a rows file: JSON, always with a unique string `id`, otherwise the task's own columns."""

Prediction = Mapping[str, Any]
"""One line of a predictions file: JSON, always with the row's `id`."""


@dataclass(frozen=True)
class Score:
    """How good predictions are: one number per metric, and per row where the metric is a mean over rows."""

    metrics: Mapping[str, float]
    """Metric -> value as a fraction (correlations: -1 to 1)."""
    rows: Sequence[Mapping[str, Any]]
    """For each row, in order: `id`, and what each metric needs of it (`f1: 0.8`, or `gold` and `predicted`)."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows, rows without an answer, predictions that were missing, ..."""
    constant: Mapping[str, str] = field(default_factory=dict)
    """What never varies, so that no metric tells a good model from a constant one: `rows` (all have one right answer)
    or `answers` (the model gave one to all) -> that value in words, such as `label 1`; see `_constant.constants`."""
    about: str = ""
    """How it was scored, in a sentence for the report, where that depends on data and model."""


@dataclass(frozen=True)
class Target:
    """What one step of learning is about: features that answer together, and what their answer should be."""

    features: tuple[int, ...]
    """Numbers of the features: one, or two for a pair of sentences."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the task's loss compares with: `label`, `start` and `end`, ..."""


class Task(BaseModel, ABC):
    """A kind of problem. Fields are its options in YAML; the line under a field documents it everywhere."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    version: ClassVar[int] = 1
    """Raise by one whenever it starts encoding, decoding or scoring differently."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions shape its answers (tokenizers, numpy, ...)."""
    auto_class: ClassVar[str]
    """transformers' class that loads a checkpoint with this task's head."""
    outputs: ClassVar[tuple[str, ...]]
    """Names of the model's outputs, in order."""
    per_token: ClassVar[bool]
    """True when the outputs have a value (or a vector) for each token: shape (batch, sequence, ...)."""
    columns: ClassVar[Mapping[str, bool]]
    """Column of a row -> whether every row must have it. `id` is always one, and is made when it is missing."""
    kinds: ClassVar[Mapping[str, Kind]] = {}
    """Column -> what its cells are, where that is not text: `label` (a name or a number, or a list of them), `number`,
    or `json` (a list, an object, true or false). A cell of a CSV is text until this says otherwise."""
    metrics: ClassVar[tuple[str, ...]]
    """Metrics it can report, the usual one first; `metrics_of` says which it does."""
    lower_is_better: ClassVar[Set[str]] = frozenset()
    """Metrics that measure an error, from 0 up; of all others more is better, and 1 the most."""
    least_values: ClassVar[Mapping[str, float]] = dict.fromkeys(("matthews", "pearson", "spearman"), -1.0) | {
        "r2": -math.inf
    }
    """Metric -> the least value that it can have, where that is not 0 (of errors it is)."""
    gold: ClassVar[str | None] = None
    """The column that has the right answer, so that rows without one are told before the build; None to leave that."""
    row_means: ClassVar[Set[str]] = frozenset()
    """Metrics that are means of shares of right answers, so that the number of rows tells how small a drop shows."""
    cluster: ClassVar[str | None] = None
    """The column by which rows belong together: several questions about one passage. Gates draw these as wholes."""
    percent: ClassVar[bool] = False
    """True when the field prints its metrics in percent; inside they are fractions all the same."""
    pipeline_tag: ClassVar[str]
    """The Hub's name for it."""
    files: ClassVar[Set[str]] = frozenset()
    """Columns whose values name a file beside the rows (an image, a recording). `row` checks that it is a text; the
    file itself goes with the rows, and `encode` gets its path."""
    unit: ClassVar[str] = "tokens"
    """What differs in number from input to input, for people; `image` where every input is one of one size."""
    shapes: ClassVar[Sequence[tuple[int, int | None]]] = SHAPES
    """(batch, length of the longest) of the examples on which a built model is compared with the original."""
    rows_at_once: ClassVar[int | None] = None
    """How many rows are encoded at once; all unless given. Bounds what the arrays of images and recordings hold."""

    @abstractmethod
    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Check one raw row (columns already renamed) and bring it to this task's form.

        Raises:
            ValueError: says what is wrong with it.
        """

    def metrics_of(self, model: Path | None = None) -> tuple[str, ...]:
        """List the metrics that it reports under its options, the usual one first.

        Args:
            model: a model's directory with config.json, for the metrics with it; None for all that are possible.

        Raises:
            RecipeError: the model does not fit the task.
        """
        return self.metrics

    def input_columns(self) -> tuple[str, ...]:
        """Name the columns that the model is given: rows that agree in these are the same, whatever their answers."""
        return tuple(name for name in self.columns if name != self.gold)

    def least(self, name: str) -> float:
        """Return the least value of a metric of which more is better; a bound at it could not fail."""
        return self.least_values.get(name, 0.0)

    def has_metric(self, name: str) -> bool:
        """Say whether it may report a metric, as far as its options tell."""
        return name in self.metrics_of()

    def choice(self, model: Path) -> Callable[[Any], Any] | None:
        """Return what says which answer an output chooses; by default the position of the largest value of each vector.

        It is called with an output without its batch axis, and gives an array or one value; two choices are the same
        where these are equal. None where outputs choose nothing, such as the number of a regression.
        """
        return lambda output: output.argmax(axis=-1)

    def part_of(self, row: Row) -> str | None:
        """Name the part of the data that a row belongs to where the field reports parts, such as HasAns and NoAns."""
        return None

    def packed(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Bring entries of `Score.rows` into a form of which `take(positions)` draws some quickly, for `aggregate`.

        None, the default, to draw from the entries themselves.
        """
        return None

    @abstractmethod
    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Make features of rows with the tokenizer or processor in the model's directory; cut, but do not pad."""

    def check_model(self, model: Path) -> None:
        """Check that the model in a directory fits the task and its options, by its configuration alone.

        Raises:
            RecipeError: the model has the head of another task, or takes fewer tokens than the task feeds it.
        """
        from cpu_pipeline.tasks import _head, _tokens

        _head.check(self.auto_class, _tokens.set_length(self), model)

    def check_rows(self, rows: Sequence[Row], model: Path) -> None:
        """Check that rows fit the model in a directory: their labels are its labels. `encode` calls it.

        Raises:
            RecipeError: a row does not.
        """
        return

    def input_kinds(self, model: Path) -> Mapping[str, InputKind]:
        """List what `encode` gives for the model in a directory, in the order in which exported models take it.

        By default tokens: int64, right-padded, ids with the padding id of config.json (0 where it names none). Models
        that padding would disturb are never padded.
        """
        from cpu_pipeline.tasks._tokens import token_kinds

        return token_kinds(model)

    def examples(
        self, model: Path, shapes: Sequence[tuple[int, int | None]] | None = None, seed: int = 0
    ) -> list[list[Feature]]:
        """Draw batches of random inputs that the model in a directory can take; equal arguments give equal batches.

        Args:
            model: The model's directory.
            shapes: (batch, length of the longest) of each batch, the length in the task's `unit`; None for a usual
                length. By default those of the task.
            seed: Of the random numbers.
        """
        from cpu_pipeline.tasks._synthetic import tokens

        return tokens(model, self.shapes if shapes is None else shapes, seed)

    def run(self, session: Session, arrays: Arrays) -> Arrays:
        """Run one padded batch; return outputs with the batch first, as `decode` gets them of each feature.

        By default one call. A task that generates overrides this: it calls the session step after step, each step on
        what the one before gave, until it has its answer. A session with state begins each batch reset, and keeps its
        state between the calls of one batch.
        """
        return session(arrays)

    @abstractmethod
    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Turn the outputs of each feature (without batch axis, cut to its length) into one prediction per row."""

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Say what the features of labelled rows should be answered with; rows without a label are left out.

        Args:
            rows: the rows.
            features: what `encode` made of them.
            model: the model's directory.

        Raises:
            RecipeError: a model of this task cannot be trained.
        """
        raise RecipeError(f"task: a model of {self.pipeline_tag} cannot be trained here; choose another task")

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Compute the mean loss of a batch of targets, as a torch scalar.

        Args:
            outputs: float32 tensors of the features of each target in order, padded: (features, ...).
            mask: 1 for real tokens, 0 for padding: (features, tokens); None for inputs of another kind.
            features: the features, in the same order.
            targets: the targets.
            model: the model's directory.
        """
        raise RecipeError(f"task: a model of {self.pipeline_tag} cannot be trained here; choose another task")

    def taught(self, feature: Feature, outputs: Arrays, model: Path) -> Arrays:
        """Return what a student learns of a teacher's outputs for one feature: arrays without a batch axis."""
        return outputs

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far a student's outputs are from its teacher's, as a torch scalar: the mean over features.

        Args:
            outputs: the student's, float32 tensors, padded: (features, ...).
            teacher: what `taught` gave of the teacher's, stacked in the same way.
            mask: 1 for real tokens, 0 for padding: (features, tokens); None for inputs of another kind.
            features: the features, in the same order.
            temperature: divides logits before they become shares.
            model: the student's directory.
        """
        raise RecipeError(f"task: a model of {self.pipeline_tag} cannot be trained here; choose another task")

    @abstractmethod
    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score predictions by row id; a row without a prediction counts as wrong and is counted."""

    @abstractmethod
    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Compute one metric from (resampled) entries of `Score.rows`; the bootstrap calls this."""

    def for_references(self, path: Path) -> Self:
        """Return the task with the options that a file of references states itself, where they are not given."""
        return self

    def read_references(self, path: Path) -> list[Row]:
        """Read references for `cpu-pipeline score`: JSON lines of rows, unless the field has a format of its own."""
        from cpu_pipeline.core.jsonl import read_jsonl

        return self.checked(read_jsonl(path), path)

    def read_predictions(self, path: Path) -> dict[str, Prediction]:
        """Read predictions for `cpu-pipeline score`: JSON lines with `id`, unless the field has its own format."""
        from cpu_pipeline.core.jsonl import read_jsonl

        return _by_id(read_jsonl(path), path)

    def read_rows(self, path: Path) -> list[Row]:
        """Read the rows.jsonl of an artifact; values of `files` become paths of files, which lie beside it."""
        from cpu_pipeline.core.jsonl import read_jsonl

        rows: list[Row] = list(read_jsonl(path))
        if not self.files:
            return rows
        return [{k: str(path.parent / v) if k in self.files else v for k, v in row.items()} for row in rows]

    def checked(self, raw: Sequence[Row], path: Path) -> list[Row]:
        """Bring raw rows with ids to this task's form.

        Raises:
            RecipeError: a row of the file is not what the task needs, or two have one id.
        """
        rows: list[Row] = []
        for name, line in _by_id(raw, path).items():
            try:
                rows.append({**self.row(line), "id": name})
            except ValueError as error:
                raise RecipeError(f"{path}: row {name}: {error}") from error
        return rows


def _by_id(lines: Sequence[Row], path: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if "id" not in line:
            raise RecipeError(f"{path}: entry {number} has no `id`; every one needs its own")
        name = str(line["id"])
        if name in found:
            raise RecipeError(f"{path}: entry {number}: the id {name!r} is there twice")
        found[name] = line
    return found
