"""Data sets of the Hub as they are: lists, lines, packed files, shards, configurations, folders, names of classes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet
from suites.loopback.serving import HUB, pipeline

pytestmark = pytest.mark.loopback

COMMIT = "a" * 40
ROWS = [{"text": f"row {i}", "label": i % 2} for i in range(12)]
CLASSES = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
CARD = "---\nconfigs:\n- {config_name: en, data_files: x/en*}\n- {config_name: de, data_files: x/de*}\n---\n"
Files = Mapping[str, bytes | Sequence[Mapping[str, Any]]]


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: Sequence[Mapping[str, Any]], separator: str = ",") -> bytes:
    cells = [["text", "label"], *([str(row["text"]), str(row["label"])] for row in rows)]
    return "".join(separator.join(line) + "\n" for line in cells).encode()


KINDS: Mapping[str, tuple[Files, Mapping[str, str], int, Sequence[str]]] = {
    "list": ({"train.json": json.dumps(ROWS).encode()}, {}, 12, "01"),
    "lines": ({"data/train.json": lines(ROWS), "data/test.json": lines(ROWS[:2])}, {}, 12, "01"),
    "packed": ({"train.jsonl.gz": gzip.compress(lines(ROWS))}, {}, 12, "01"),
    "packed-list": ({"train.json.gz": gzip.compress(json.dumps({"data": ROWS}).encode())}, {}, 12, "01"),
    "packed-table": ({"train.csv.gz": gzip.compress(table(ROWS))}, {}, 12, "01"),
    "tabs": ({"train.tsv": table(ROWS, "\t")}, {}, 12, "01"),
    "shards": (
        {**{f"data/train-0000{i}-of-00003.parquet": ROWS[4 * i : 4 * i + 4] for i in range(3)},
         "data/train_sft-00000-of-00001.parquet": ROWS},
        {}, 12, ("neg", "pos"),
    ),
    "converted": ({"default/train/0000.parquet": ROWS, "default/test/0000.parquet": ROWS[:1]}, {}, 12, ("neg", "pos")),
    "folders": ({"en/train.jsonl": lines(ROWS), "de/train.jsonl": lines(ROWS[:3])}, {"config": "de"}, 3, "01"),
    "configs": (
        {"x/en.jsonl.gz": gzip.compress(lines(ROWS)), "x/de.jsonl.gz": gzip.compress(lines(ROWS[:3])),
         "README.md": CARD.encode()},
        {"config": "de"}, 3, "01",
    ),
    "described": (
        {"train.csv": table(ROWS), "dataset_infos.json": json.dumps({"default": {"features": CLASSES}}).encode()},
        {}, 12, ("neg", "pos"),
    ),
}  # fmt: skip
"""Repository -> its files (rows are written as Parquet), what the recipe adds, rows and labels that are read."""


def put(home: Path, files: Files) -> None:
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
            continue
        metadata = {"huggingface": json.dumps({"info": {"features": CLASSES}})}
        parquet.write_table(pa.Table.from_pylist(list(content)).replace_schema_metadata(metadata), path)


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repos")
    for name, (files, *_) in KINDS.items():
        put(root / "datasets" / "kinds" / name / COMMIT, files)
    put(root / "datasets" / "kinds" / "script" / COMMIT, {"script.py": b"raise SystemExit", "README.md": b""})
    return root


def load(home: Path, repos: Path, folder: Path, name: str, **fields: str) -> dict[str, Any]:
    """Run a recipe up to its validation rows; return what the command prints, its exit code among it."""
    data = {"hub": f"kinds/{name}", "revision": COMMIT, "split": "train", **fields}
    model = next(HUB.glob("repos/models/distilbert/*/*"))
    recipe = {
        "model": {"hub": f"distilbert/{model.parent.name}", "revision": model.name},
        "task": "text-classification",
        "data": {"validation": data},
        "stages": [{"id": "float", "use": "export.onnx"}],
    }
    (folder / "rows.yaml").write_text(yaml.safe_dump(recipe))
    words = ("run", "rows.yaml", "--until", "data.validation", "--json")
    done = pipeline(home, *words, serve=("--repos", repos), cwd=folder)
    return {"exit_code": done.returncode, **json.loads(done.stdout)}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_is_read(home: Path, repos: Path, tmp_path: Path, name: str) -> None:
    _, fields, count, labels = KINDS[name]
    made = load(home, repos, tmp_path, name, **fields)
    step = made["steps"]["data.validation"]
    assert (step["facts"]["rows"], step["facts"]["total"]) == (count, count)
    [rows] = (home / "store" / "objects").glob(f"*/{step['digest']}/rows.jsonl")
    assert [json.loads(line)["label"] for line in rows.read_text().splitlines()] == [
        labels[i % 2] for i in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("folders", {}, "split 'train' lies in several folders; say `config:` with one of de, en"),
        ("configs", {}, "it has several configurations; say `config:` with one of de, en"),
        ("configs", {"config": "fr"}, "no configuration 'fr'; say `config:` with one of de, en"),
        ("shards", {"split": "test"}, "no split 'test'; there is train, train_sft"),
        ("script", {}, "its rows come from a script, script.py, and scripts of data sets are not run"),
    ],
)
def test_what_is_not_clear_is_asked_for(
    home: Path, repos: Path, tmp_path: Path, name: str, fields: Mapping[str, str], says: str
) -> None:
    made = load(home, repos, tmp_path, name, **fields)
    assert made["exit_code"] == 2 and says in made["says"], made
