"""Fetched data files, brought to the task's rows: one split, a sample of it, columns renamed, every row checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.artifact import canonical, digest_file, digest_json
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.jsonl import ROWS, write_jsonl
from cpu_pipeline.core.repo_files import DATA
from cpu_pipeline.core.tables import Table, open_table
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages.load import _media, _splits
from cpu_pipeline.tasks._base import Task

ORIGIN = "origin.json"
"""Beside rows whose ids were made here: which files they number. Such ids mean nothing next to another file's."""


class RowsFacts(Facts):
    """What was read."""

    rows: Count
    """Rows that were taken."""
    total: Count
    """Rows that the files hold."""
    ids: str
    """Digest of the rows' ids, in order."""
    files: list[str]
    """Files of the data that were read, in order."""
    labels: dict[str, list[str]]
    """Column of the task -> names of its label numbers, where the data has them."""


class LoadRows(Stage):
    """Read one split of a data set as rows of the task: sampled, columns renamed, checked, each with an id."""

    takes: ClassVar[Mapping[str, Set[str]]] = {"files": {"files"}}
    reads: ClassVar[Set[str]] = frozenset({"task"})
    packages: ClassVar[tuple[str, ...]] = ("pyarrow",)
    internal: ClassVar[bool] = True
    facts_model: ClassVar = RowsFacts
    unkeyed: ClassVar[Set[str]] = frozenset({"role"})

    role: str = "data"
    """Which data of the recipe it is (`validation`, ...), for messages."""
    split: str | None = None
    """Split to read; without one, every file."""
    config: str | None = None
    """Configuration of the data set, when it has several."""
    take: int | None = Field(default=None, gt=0)
    """How many rows to sample; all when not given."""
    seed: int = 0
    """Seed of the sample."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the task -> what the data calls it."""

    def gives(self) -> str:
        """Return `rows`."""
        return "rows"

    def run(self, inputs: Inputs, out: Path, job: Job) -> RowsFacts:
        """Write rows.jsonl, in the order of the data.

        Raises:
            RecipeError: no such split or column, no rows or too few, an id twice, a row that the task refuses.
            StageFailed: a file is not valid.
        """
        if job.task is None:
            raise StageFailed(f"{self._where}: rows need a task")
        home = inputs["files"].path
        names = [p.relative_to(home).as_posix() for p in home.rglob("*") if p.suffix.lower() in DATA]
        chosen = _splits.choose(names, home / "README.md", self.config, self.split, self._where)
        tables = [open_table(home / name, name) for name in chosen]
        total = sum(table.count for table in tables)
        if not total:
            raise RecipeError(f"{self._where}: {', '.join(chosen)}: no rows; name data that has some")
        if self.take and self.take > total:
            raise RecipeError(f"{self._where}: take: {self.take}, but there are {total} rows; take fewer")
        take = self.taken(total)
        picked = sample(total, take, self.seed) if take else range(total)
        rows = self._rows(tables, picked, job.task, _media.Carrier(home, out))
        if any("id" not in self._columns_of(table, job.task) for table in tables):
            origin = digest_json({name: digest_file(home / name) for name in chosen})
            (out / ORIGIN).write_text(canonical({"files": origin}) + "\n", encoding="utf-8")
        write_jsonl(out / ROWS, rows)
        labels = {
            column: table.labels[name]
            for table in tables
            for column, name in self._columns_of(table, job.task).items()
            if name in table.labels
        }
        ids = digest_json([row["id"] for row in rows])
        return RowsFacts(rows=len(rows), total=total, ids=ids, files=chosen, labels=labels)

    def taken(self, total: int) -> int | None:
        """Say how many of all rows to sample; None for all."""
        return self.take

    @property
    def _where(self) -> str:
        return self.role if self.role == "data" else f"data.{self.role}"

    def _rows(
        self, tables: Sequence[Table], picked: Sequence[int], task: Task, media: _media.Carrier
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        seen: dict[str, str] = {}
        start = 0
        for table in tables:
            names_of = self._columns_of(table, task)
            within = [i - start for i in picked if start <= i < start + table.count]
            for index, raw in zip(within, table.take(within, sorted(set(names_of.values()))), strict=True):
                renamed = {key: raw[name] for key, name in names_of.items() if name in raw}
                for column in task.files & renamed.keys():
                    with _media.named(f"{self._where}: {table.row_name(index)}: `{column}`"):
                        renamed[column] = media(renamed[column], Path(table.name).parent)
                generated = f"{self.split or Path(table.name).stem}-{(start if self.split else 0) + index}"
                row = self._row(renamed, generated, f"{self._where}: {table.row_name(index)}", task)
                if row["id"] in seen:
                    raise RecipeError(
                        f"{self._where}: {table.row_name(index)}: "
                        f"the id {row['id']!r} is also that of {seen[row['id']]}; "
                        f"make ids unique, or rename the column so that ids are made"
                    )
                seen[row["id"]] = table.row_name(index)
                rows.append(row)
            start += table.count
        return rows

    def _row(self, raw: dict[str, Any], generated: str, where: str, task: Task) -> dict[str, Any]:
        own = raw.get("id")
        if isinstance(own, (bool, float, list, dict, bytes)):
            raise RecipeError(f"{where}: the id {own!r} is neither a text nor a whole number; correct it")
        raw["id"] = generated if own is None or own == "" else str(own)
        try:
            row = task.row(raw)
            row["id"] = raw["id"]
            json.dumps(row, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{where}: {error}; correct it, or name other columns with `columns:`") from None
        return row

    def _columns_of(self, table: Table, task: Task) -> dict[str, str]:
        """Map each column of the task that this file has to the file's name for it.

        Raises:
            RecipeError: a column is missing, or `columns:` names one that the task does not know.
        """
        known = {"id": False, **task.columns}
        if strange := sorted(self.columns.keys() - known.keys()):
            close = get_close_matches(strange[0], known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RecipeError(
                f"{self._where}: columns: the task has no column {strange[0]!r}{hint}; it has {', '.join(known)}"
            )
        names_of = {}
        for column, needed in known.items():
            name = self.columns.get(column, column)
            if name in table.columns:
                names_of[column] = name
            elif needed or column in self.columns:
                taken = set(self.columns.values()) | {c for c in known if c not in self.columns}
                free = [c for c in table.columns if c not in taken] or list(table.columns)
                close = get_close_matches(name, free, 1, 0.5) or get_close_matches(column, free, 1, 0.5)
                raise RecipeError(
                    f"{self._where}: {table.name}: no column {name!r}; it has {', '.join(table.columns)}; "
                    f"say which one it is: `columns: {{{column}: {close[0] if close else (free or ['...'])[0]}}}`"
                )
        return names_of


def sample(total: int, take: int, seed: int) -> list[int]:
    """Pick `take` of `total` indices, in order: one of each of `take` equal parts, so that they spread over the data.

    Neighbouring rows are alike (SQuAD asks five questions about each paragraph), and a spread sample calibrates better
    than a run of neighbours. Which index of its part is picked hangs on SHA-256 of seed and part: Python promises equal
    sequences across versions for `Random.random` alone, not for `Random.sample`.

    Args:
        total: number of rows.
        take: how many to pick, at most `total`.
        seed: other seeds pick other rows.

    Returns:
        Indices from 0, ascending.
    """
    picked = []
    for part in range(take):
        first, last = part * total // take, (part + 1) * total // take
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{part}".encode()).digest(), "big")
        picked.append(first + draw % (last - first))
    return picked
