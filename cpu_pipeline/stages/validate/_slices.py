"""Slices of the rows, each judged by itself: by a column, by length, or by the parts that the field reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._columns import value_of
from cpu_pipeline.tasks._base import Row, Task

MOST = 50
"""Slices by one property."""
LENGTHS = ("short", "middle", "long")
"""Names of the thirds of the rows by length."""

Drop = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Limit(BaseModel):
    """What is asked of one slice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_drop: Drop | None = None
    """How much worse the candidate may be in this slice."""
    min_rows: int | None = Field(default=None, ge=1)
    """Fewest rows of this slice."""


class Slices(BaseModel):
    """One property that divides the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(default=None, min_length=1)
    """Column of the data; each of its values is a slice."""
    by: Literal["length", "answer"] | None = None
    """`length`: the shortest, middle and longest third of the rows, by characters. `answer`: questions with and without
    an answer (HasAns, NoAns)."""
    max_drop: Drop | None = None
    """How much worse the candidate may be in each slice; the gate's unless given."""
    min_rows: int = Field(default=30, ge=1)
    """Fewest rows of each slice; one with fewer is inconclusive."""
    each: dict[str, Limit] = Field(default_factory=dict)
    """Name of a slice -> its own max_drop and min_rows."""
    metric: str | None = None
    """Metric that is judged; the gate's unless given."""

    @property
    def name(self) -> str:
        """Name the property."""
        return self.column or str(self.by)

    def limits(self, name: str, usual: float | None) -> tuple[float | None, int]:
        """Return the allowed drop of a slice and its fewest rows.

        Args:
            name: the slice.
            usual: the allowed drop where neither it nor its property has one.
        """
        own = self.each.get(name, Limit())
        drop = next((d for d in (own.max_drop, self.max_drop, usual) if d is not None), None)
        return drop, own.min_rows or self.min_rows

    def divide(self, rows: Sequence[Row], columns: Mapping[str, Row], task: Task) -> dict[str, list[int]]:
        """Return the positions of the rows of each slice, in the order of their names.

        Args:
            rows: the rows.
            columns: id of a row -> columns that are none of the task's own.
            task: the task.

        Raises:
            RecipeError: the rows cannot be divided so, or into too many slices.
        """
        if self.by == "length":
            return self._known(_thirds([_length(row, task) for row in rows]))
        found: dict[str, list[int]] = {}
        for position, row in enumerate(rows):
            name = task.part_of(row) if self.by else value_of(row, columns, self.name)
            if name is None:
                raise RecipeError(f"slices: by: answer: row {row['id']} has no such part; it is for SQuAD 2.0")
            found.setdefault(name, []).append(position)
        if len(found) > MOST:
            raise RecipeError(f"slices: `{self.name}` has {len(found)} values, {MOST} at most; name a coarser column")
        return self._known({name: found[name] for name in sorted(found)})

    def _known(self, found: dict[str, list[int]]) -> dict[str, list[int]]:
        if strange := sorted(self.each.keys() - found.keys()):
            raise RecipeError(f"slices: each: no row is of the slice {strange[0]!r}; there are: {', '.join(found)}")
        return found


def _thirds(lengths: Sequence[int]) -> dict[str, list[int]]:
    """Divide rows by length; rows of one length are in one third."""
    ordered = sorted(lengths)
    first, second = (ordered[len(ordered) * part // 3] for part in (1, 2))
    found: dict[str, list[int]] = {name: [] for name in LENGTHS}
    for position, length in enumerate(lengths):
        found[LENGTHS[(length >= first) + (length >= second)]].append(position)
    return {name: positions for name, positions in found.items() if positions}


def _length(row: Row, task: Task) -> int:
    """Count the characters of what the model reads."""
    values: list[Any] = [row.get(name) for name in task.columns if name != task.gold and name not in task.files]
    texts = [value for value in values if isinstance(value, str)]
    words = [word for value in values if isinstance(value, list) for word in value if isinstance(word, str)]
    if not texts and not words:
        raise RecipeError(f"slices: by: length: row {row['id']} has no text; name a `column`")
    return sum(map(len, (*texts, *words)))
