"""Check that the data roles are disjoint: nothing is judged by the rows it was made from."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.jsonl import ROWS, read_jsonl
from cpu_pipeline.stages._base import ROLES, Count, Facts, Inputs, Job, Role, Stage
from cpu_pipeline.stages.load import _same
from cpu_pipeline.stages.load.rows import ORIGIN
from cpu_pipeline.tasks._base import Task

REPORT = "apart.json"


class ApartFacts(Facts):
    """What was compared."""

    rows: dict[Role, Count]
    """Role -> number of its rows."""


class LoadApart(Stage):
    """Check that the data roles share no row: neither by id, nor by what the task gives a model of it."""

    takes: ClassVar[Mapping[str, Set[str]]] = {role: {"rows"} for role in ROLES}
    optional: ClassVar[Set[str]] = frozenset(ROLES)
    internal: ClassVar[bool] = True
    reads: ClassVar[Set[str]] = frozenset({"task"})
    version: ClassVar[int] = 2
    facts_model: ClassVar = ApartFacts

    def gives(self) -> str:
        """Return `report`."""
        return "report"

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Do the work: it is cheap."""
        self.run(inputs, out, job)
        return ()

    def run(self, inputs: Inputs, out: Path, job: Job) -> ApartFacts:
        """Write apart.json: rows of each role, and what each pair shares, which is nothing.

        Raises:
            RecipeError: two roles share rows; names them, how many, and one.
        """
        roles = {role: _read(inputs[role], job.task) for role in ROLES if role in inputs}
        for (first, one), (second, other) in combinations(roles.items(), 2):
            _check(first, one, second, other)
        counts = {role: len(rows.contents) for role, rows in roles.items()}
        report = {"rows": counts, "apart": [f"{first} and {second}" for first, second in combinations(roles, 2)]}
        (out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return ApartFacts(rows=counts)


@dataclass(frozen=True)
class _Rows:
    """The rows of one role. Made ids number the rows of certain files, and say nothing beside ids of any others."""

    contents: list[tuple[str, Hashable]]
    """Of each row, its id and what makes it that row; see `_same.essence`."""
    origin: str | None
    """The files that made ids number; None when the ids are the data's own."""


def _read(artifact: Artifact, task: Task | None) -> _Rows:
    contents: list[tuple[str, Hashable]] = []
    for row in read_jsonl(artifact.path / ROWS):
        name = str(row.pop("id"))
        columns = task.input_columns() if task is not None else sorted(row)
        contents.append((name, _same.essence(row, columns, task.files if task is not None else frozenset())))
    origin = artifact.path / ORIGIN
    return _Rows(contents, json.loads(origin.read_text(encoding="utf-8"))["files"] if origin.is_file() else None)


def _check(first: str, one: _Rows, second: str, other: _Rows) -> None:
    ids = {name for name, _ in one.contents} if one.origin == other.origin else set()
    contents = {content for _, content in one.contents}
    shared = [name for name, content in other.contents if name in ids or content in contents]
    if shared:
        raise RecipeError(
            f"data.{first} and data.{second} share {len(shared)} of {len(other.contents)} rows, such as {shared[0]!r} "
            "(by id, or by what the model is given, whatever its case, white space and answers); choose another split, "
            "file, `take:` or `seed:` for one of them; of one file, `without: 300` is what `take: 300` leaves"
        )
