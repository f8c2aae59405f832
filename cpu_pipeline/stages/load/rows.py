"""Fetched data files, brought to the task's rows: one split, a sample of it, columns renamed, every row checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from cpu_pipeline.core import cells
from cpu_pipeline.core.artifact import canonical, digest_file, digest_json
from cpu_pipeline.core.errors import PipelineError, RecipeError, StageFailed
from cpu_pipeline.core.jsonl import COLUMNS, ROWS, write_jsonl
from cpu_pipeline.core.repo_files import INFOS, ORDER, data_kind
from cpu_pipeline.core.tables import Table, open_table
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages.load import _cards, _media, _splits
from cpu_pipeline.tasks._base import Task

LONGEST_NAME = 60
"""Characters of a column's name that a message shows."""
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

    version: ClassVar = 2
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
    without: int | None = Field(default=None, gt=0)
    """Leave out the rows that `take` of this number picks with the same seed, and those that say the same: the rest of
    a file of which another role has that sample."""
    seed: int = 0
    """Seed of the sample."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the task -> what the data calls it."""
    beside: tuple[str, ...] = ()
    """Columns of the data that gates divide the rows by, and that are none of the task's; the graph names them."""

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out an option that is newer than many a store, where it is not set: keys stay as they were."""
        options: dict[str, Any] = dump(self)
        return {key: value for key, value in options.items() if key not in ("without", "beside") or value}

    def gives(self) -> str:
        """Return `rows`."""
        return "rows"

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Do the work: it is cheap."""
        self.run(inputs, out, job)
        return ()

    def run(self, inputs: Inputs, out: Path, job: Job) -> RowsFacts:
        """Write rows.jsonl, in the order of the data.

        Raises:
            RecipeError: a file is not valid, no such split or column, no rows or too few, an id twice, a row that the
                task refuses.
        """
        if job.task is None:
            raise StageFailed(f"{self.where}: rows need a task")
        home = inputs["files"].path
        names = [p.relative_to(home).as_posix() for p in home.rglob("*") if data_kind(p.name) and p.name != INFOS]
        chosen = _splits.choose(names, home / "README.md", self.config, self.split, self.where)
        if (home / ORDER).is_file():
            chosen.sort(key=json.loads((home / ORDER).read_text(encoding="utf-8")).index)
        tables = [open_table(home / name, name) for name in chosen]
        total = sum(table.count for table in tables)
        picked = self._pick(total, chosen)
        if any("id" not in self.columns_of(table, job.task) for table in tables if table.count):
            origin = digest_json({name: digest_file(home / name) for name in chosen})
            (out / ORIGIN).write_text(canonical({"files": origin}) + "\n", encoding="utf-8")
        described = _cards.class_names(home, self.config) if self.split else {}
        reader = _Rows(self, job.task, described, _media.Carrier(home, out))
        if left_out := self._left_out(total):
            reader.leave_out(tables, left_out)
        write_jsonl(out / ROWS, reader.read(tables, picked))
        if self.beside:
            write_jsonl(out / COLUMNS, reader.beside)
        if not reader.ids:
            raise RecipeError(f"{self.where}: without: every other row says what a row that is left out says")
        ids = digest_json(list(reader.ids))
        return RowsFacts(rows=len(reader.ids), total=total, ids=ids, files=chosen, labels=reader.labels)

    def _pick(self, total: int, chosen: Sequence[str]) -> Sequence[int]:
        if not total:
            raise RecipeError(f"{self.where}: {', '.join(chosen)}: no rows; name data that has some")
        if self.take and self.take > total:
            raise RecipeError(f"{self.where}: take: {self.take}, but there are {total} rows; take fewer")
        left_out = set(self._left_out(total))
        rest = [index for index in range(total) if index not in left_out] if left_out else range(total)
        if not rest or (self.take and self.take > len(rest)):
            raise RecipeError(f"{self.where}: without: {self.without} leaves {len(rest)} rows; leave out fewer")
        take = self.taken(len(rest))
        return [rest[index] for index in sample(len(rest), take, self.seed)] if take else rest

    def _left_out(self, total: int) -> list[int]:
        return sample(total, min(self.without, total), self.seed) if self.without else []

    def taken(self, total: int) -> int | None:
        """Say how many of all rows to sample; None for all."""
        return self.take

    @property
    def where(self) -> str:
        """Name the data role for messages."""
        return self.role if self.role == "data" else f"data.{self.role}"

    def columns_of(self, table: Table, task: Task) -> dict[str, str]:
        """Map each column of the task that this file has to the file's name for it.

        Raises:
            RecipeError: a column is missing, or `columns:` names one that the task does not know.
        """
        known = {"id": False, **task.columns}
        if strange := sorted(self.columns.keys() - known.keys()):
            close = get_close_matches(strange[0], known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise RecipeError(
                f"{self.where}: columns: the task has no column {strange[0]!r}{hint}; it has {', '.join(known)}"
            )
        names_of = {}
        for column, needed in known.items():
            name = self.columns.get(column, column)
            if name in table.columns:
                names_of[column] = name
            elif needed or column in self.columns:
                taken = set(self.columns.values()) | {c for c in known if c not in self.columns}
                free = [c for c in table.columns if c not in taken] or list(table.columns)
                names = ", ".join(c if len(c) <= LONGEST_NAME else c[:LONGEST_NAME] + "…" for c in table.columns)
                head = " in its first line" if data_kind(table.name) in (".csv", ".tsv") else ""
                close = get_close_matches(name, free, 1, 0.5) or get_close_matches(column, free, 1, 0.5)
                raise RecipeError(
                    f"{self.where}: {table.name}: no column {name!r}; it has {names}{head}; "
                    f"say which one it is: `columns: {{{column}: {close[0] if close else (free or ['...'])[0]}}}`"
                )
        return names_of


class _Rows:
    """Reads the rows of one data role: renames columns, makes ids, and lets the task check each row."""

    def __init__(
        self, stage: LoadRows, task: Task, described: Mapping[str, Sequence[str]], media: _media.Carrier
    ) -> None:
        self._stage, self._task, self._media = stage, task, media
        self._described = described
        self._numbered = isinstance(getattr(task, "labels", None), tuple)
        self.ids: dict[str, str] = {}
        """Id of each row -> its place."""
        self.labels: dict[str, list[str]] = {}
        """Column of the task -> names of its class numbers."""
        self.beside: list[dict[str, Any]] = []
        """Of each row its id, and the columns that gates divide the rows by."""
        self._unwanted = set[str]()
        """What rows must not say."""

    def leave_out(self, tables: Sequence[Table], indices: Sequence[int]) -> None:
        """Leave out what says the same as these rows, from now on."""
        self._unwanted = {_content(row) for row in self.read(tables, indices)}
        self.ids.clear()
        self.beside.clear()

    def read(self, tables: Sequence[Table], picked: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Read the rows with these numbers, counted over all files."""
        start = 0
        for table in tables:
            within = [i - start for i in picked if start <= i < start + table.count]
            if within:
                yield from self._rows(table, within, start)
            start += table.count

    def _rows(self, table: Table, within: Sequence[int], start: int) -> Iterator[dict[str, Any]]:
        stage = self._stage
        names_of = stage.columns_of(table, self._task)
        known = {**self._described, **table.labels}
        labels = {column: known[name] for column, name in names_of.items() if name in known}
        self.labels |= {column: list(names) for column, names in labels.items()}
        self._require_beside(table)
        wanted = sorted({*names_of.values(), *stage.beside})
        for index, (place, raw) in zip(within, table.read(within, wanted), strict=True):
            where = f"{stage.where}: {place}"
            renamed = {key: raw[name] for key, name in names_of.items() if name in raw}
            generated = f"{stage.split or Path(table.name).stem}-{(start if stage.split else 0) + index}"
            row = self._row(renamed, generated, where, Path(table.name).parent, labels)
            if self._unwanted and _content(row) in self._unwanted:
                continue
            if row["id"] in self.ids:
                raise RecipeError(
                    f"{where}: the id {row['id']!r} is also that of {self.ids[row['id']]}; "
                    f"make ids unique, or rename the column so that ids are made"
                )
            self.ids[row["id"]] = place
            if stage.beside:
                self.beside.append({"id": row["id"], **{name: _plain(raw.get(name)) for name in stage.beside}})
            yield row

    def _require_beside(self, table: Table) -> None:
        """Check that a file has the columns that gates divide the rows by.

        Raises:
            RecipeError: it lacks one.
        """
        for name in self._stage.beside:
            if table.count and name not in table.columns:
                raise RecipeError(
                    f"{self._stage.where}: {table.name}: no column {name!r}, by which a gate divides the rows "
                    f"(`cluster` or `slices`); it has {', '.join(table.columns)}{did_you_mean(name, table.columns)}"
                )

    def _row(
        self, raw: dict[str, Any], generated: str, where: str, folder: Path, labels: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        own = raw.get("id")
        if isinstance(own, (bool, float, list, dict, bytes)):
            raise RecipeError(f"{where}: the id {own!r} is neither a text nor a whole number; correct it")
        for column in self._task.files & raw.keys():
            with _media.named(f"{where}: `{column}`"):
                raw[column] = self._media(raw[column], folder)
        raw["id"] = generated if own is None or own == "" else str(own)
        try:
            row = self._task.row(dict(self._cells(raw, labels)))
            row["id"] = raw["id"]
            json.dumps(row, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            advice = "" if ";" in str(error) else "; correct it, or name other columns with `columns:`"
            raise RecipeError(f"{where}: {error}{advice}") from None
        return row

    def _cells(self, raw: Mapping[str, Any], labels: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Any]]:
        """Give every cell that holds something: an optional column that is empty says nothing in any kind of file."""
        for column, value in raw.items():
            kind = self._task.kinds.get(column, "text")
            empty = value == "" and (kind != "text" or not self._task.columns.get(column, True))
            unlabelled = self._stage.role == "calibration" and value in (-1, "-1") and column in labels
            if not empty and not unlabelled:
                names = () if self._numbered else labels.get(column, ())
                yield column, cells.read(column, value, kind, names, numbered=self._numbered)


def _plain(value: Any) -> str | int | float | bool | None:
    """Take a cell as one value: what is none becomes the text of it."""
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _content(row: Mapping[str, Any]) -> str:
    return canonical({key: value for key, value in row.items() if key != "id"})


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
