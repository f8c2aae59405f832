"""The same rows give the same artifact, byte for byte, whatever kind of file holds them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from cpu_pipeline import tasks
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks._base import Task

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
LABEL = st.sampled_from(["good", "NA", "true", "007", "1e5", "12:30", " x", "[UNK]"]) | TEXT
WORDS = st.lists(TEXT, min_size=1, max_size=4)
ANSWERS = st.lists(st.tuples(TEXT, st.integers(0, 99)), min_size=1, max_size=2).map(
    lambda found: {"text": [text for text, _ in found], "answer_start": [start for _, start in found]}
)


def rows(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw rows in which each optional column may have nothing, with ids of their own."""
    some = st.fixed_dictionaries(dict(columns))
    return st.lists(some, min_size=1, max_size=6).map(lambda found: [{"id": f"q{i}", **r} for i, r in enumerate(found)])


def maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | value


TAGGED = WORDS.flatmap(
    lambda words: st.fixed_dictionaries(
        {"tokens": st.just(words), "tags": maybe(st.lists(TEXT, min_size=len(words), max_size=len(words)))}
    )
)
DRAWN: Mapping[str, st.SearchStrategy[list[dict[str, Any]]]] = {
    "text-classification": rows(text=TEXT, text_pair=maybe(TEXT), label=maybe(LABEL))
    | rows(text=TEXT, text_pair=maybe(TEXT), label=maybe(st.integers(0, 10**6))),
    "sentence-similarity": rows(
        sentence1=TEXT, sentence2=TEXT, score=maybe(st.floats(allow_nan=False, allow_infinity=False))
    )
    | rows(sentence1=TEXT, sentence2=TEXT, score=maybe(st.integers(-(2**50), 2**50))),
    "token-classification": st.lists(TAGGED, min_size=1, max_size=5).map(
        lambda found: [{"id": str(i), **row} for i, row in enumerate(found)]
    ),
    "question-answering": rows(question=TEXT, context=TEXT, answers=maybe(ANSWERS)),
}
MEDIA = {"image-classification", "audio-classification"}
"""Tasks whose rows name files; tests of `_media` have them."""


def cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def write(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    name, pack = path.name.removesuffix(".gz"), path.suffix == ".gz"
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(list(found)), path)
        return
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    elif name.endswith(".json"):
        text = json.dumps(found, indent=1)
    else:
        text = table(found, "\t" if name.endswith(".tsv") else ",")
    path.write_bytes(gzip.compress(text.encode()) if pack else text.encode())


def table(found: Sequence[Mapping[str, Any]], separator: str) -> str:
    import io

    with io.StringIO(newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows({column: cell(value) for column, value in row.items()} for row in found)
        return file.getvalue()


def digest(folder: Path, name: str, task: Task, found: Sequence[Mapping[str, Any]]) -> str:
    home, out = folder / f"{name}-data", folder / f"{name}-out"
    home.mkdir()
    out.mkdir()
    write(home / name, found)
    job = Job(load=None, timer=None, task=task)  # type: ignore[arg-type]
    LoadRows(role="validation").run({"files": Artifact("files", home, "", {})}, out, job)
    return digest_tree(out)


@pytest.mark.parametrize("name", [name for name in tasks.names() if name not in MEDIA])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_kind_of_file_changes_nothing(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    found = data.draw(DRAWN[name])
    task = tasks.get(name)()
    folder = tmp_path_factory.mktemp("same")
    kinds = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz")
    digests = {kind: digest(folder, kind, task, found) for kind in kinds}
    assert len(set(digests.values())) == 1, digests


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(DRAWN["text-classification"])
@example(
    [
        {"id": "q0", "text": "a", "text_pair": "", "label": "1"},
        {"id": "q1", "text": "b", "text_pair": "c", "label": "x"},
    ]
)
def test_a_row_means_the_same_beside_any_others(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, Any]]
) -> None:
    task = tasks.get("text-classification")()
    for kind in ("a.csv", "a.parquet", "a.jsonl"):
        folder = tmp_path_factory.mktemp("alone")
        digest(folder, kind, task, found)
        together = (folder / f"{kind}-out" / "rows.jsonl").read_bytes()
        alone = b""
        for row in found:
            single = tmp_path_factory.mktemp("one")
            digest(single, kind, task, [row])
            alone += (single / f"{kind}-out" / "rows.jsonl").read_bytes()
        assert alone == together


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["[", "[[1]]", '{"a": 1}', "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=6,
)


@pytest.mark.parametrize("name", [name for name in tasks.names() if name not in MEDIA])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_gives_rows_or_a_message(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    task = tasks.get(name)()
    columns = {column: ANYTHING for column in ("id", *task.columns)}
    usual = data.draw(DRAWN[name])[0]
    row = {**usual, **data.draw(st.fixed_dictionaries({}, optional=columns))}
    kind = data.draw(st.sampled_from(["a.jsonl", "a.json", "a.csv"]))
    try:
        digest(tmp_path_factory.mktemp("any"), kind, task, [row])
    except RecipeError as error:
        assert "a." in str(error) and "\n" not in str(error) and len(str(error)) < 1000, str(error)
