"""Check that the data roles are disjoint: nothing is judged by the rows it was made from."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.figures import Note
from cpu_pipeline.core.jsonl import ROWS, read_jsonl
from cpu_pipeline.stages._base import ROLES, Count, Facts, Inputs, Job, Role, Stage
from cpu_pipeline.stages.load import _near, _same
from cpu_pipeline.stages.load.rows import ORIGIN
from cpu_pipeline.tasks._base import Task

REPORT = "apart.json"


class NearFacts(Facts):
    """Rows of one role that are nearly rows of another one."""

    of: Role
    """The role that was searched for them."""
    to: Role
    """The role that was searched for what they are nearly the same as."""
    rows: Count
    """How many there are, of those that were compared."""
    compared: tuple[Count, Count]
    """Rows of both that were compared."""
    totals: tuple[Count, Count]
    """Rows of both."""
    example: tuple[str, str]
    """Ids of one of them and of what it is nearly the same as."""

    def __str__(self) -> str:
        """Write it as a sentence."""
        (mine, yours), (all_mine, all_yours) = self.compared, self.totals
        sampled = (mine, yours) != (all_mine, all_yours)
        how = f"; only {mine:,} of {all_mine:,} rows were compared with {yours:,} of {all_yours:,}" if sampled else ""
        share = f"{self.rows} of {mine:,} rows of data.{self.of} ({self.rows / mine:.1%})"
        return (
            f"{share} are nearly rows of data.{self.to}, such as {self.example[0]!r} of {self.example[1]!r}: "
            f"what is measured on them may be too good{how}"
        )


class ApartFacts(Facts):
    """What was compared."""

    rows: dict[Role, Count]
    """Role -> number of its rows."""
    near: list[NearFacts] = Field(default_factory=list)
    """Roles that have near duplicates: texts of which 80 % of all runs of five characters are the same."""


class LoadApart(Stage):
    """Check that the data roles share no row: neither by id, nor by what the task gives a model of it."""

    takes: ClassVar[Mapping[str, Set[str]]] = {role: {"rows"} for role in ROLES}
    optional: ClassVar[Set[str]] = frozenset(ROLES)
    internal: ClassVar[bool] = True
    reads: ClassVar[Set[str]] = frozenset({"task"})
    packages: ClassVar = ("datasketch", "numpy")
    version: ClassVar[int] = 3
    facts_model: ClassVar = ApartFacts

    def gives(self) -> str:
        """Return `report`."""
        return "report"

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError | str]:
        """Compare the rows; near duplicates are looked for where no build does so afterwards."""
        roles = _apart(inputs, job.task)
        yield from (str(found) for found in (_near_duplicates(roles) if job.advises else ()))

    def run(self, inputs: Inputs, out: Path, job: Job) -> ApartFacts:
        """Write apart.json: rows of each role, what each pair shares, which is nothing, and what is nearly the same.

        Raises:
            RecipeError: two roles share rows; names them, how many, and one.
        """
        roles = _apart(inputs, job.task)
        near = _near_duplicates(roles)
        counts = {role: len(rows.contents) for role, rows in roles.items()}
        report: dict[str, object] = {
            "rows": counts,
            "apart": [f"{first} and {second}" for first, second in combinations(roles, 2)],
            "near": [found.model_dump(mode="json") for found in near],
        }
        (out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return ApartFacts(rows=counts, near=near)

    def notices(self, facts: ApartFacts) -> list[str]:
        """Tell which roles have near duplicates."""
        return [str(found) for found in facts.near]

    def details(self, facts: ApartFacts) -> list[Note]:
        """Tell the same in the report."""
        return [Note(f"{says[0].upper()}{says[1:]}.", warning=True) for says in self.notices(facts)]


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


def _apart(inputs: Inputs, task: Task | None) -> dict[Role, _Rows]:
    """Read the rows of all roles, and refuse those that share some."""
    roles = {role: _read(inputs[role], task) for role in ROLES if role in inputs}
    for (first, one), (second, other) in combinations(roles.items(), 2):
        _check(first, one, second, other)
    return roles


def _near_duplicates(roles: Mapping[Role, _Rows]) -> list[NearFacts]:
    if len(roles) < 2:
        return []
    sketched = {role: _near.sketch(rows.contents) for role, rows in roles.items() if rows.contents}
    found = []
    for (first, one), (second, other) in combinations(sketched.items(), 2):
        if pairs := _near.nearly_same(one, other):
            counts = {"compared": (len(other.names), len(one.names)), "totals": (other.total, one.total)}
            found.append(NearFacts(of=second, to=first, rows=len(pairs), example=pairs[0], **counts))
    return found


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
