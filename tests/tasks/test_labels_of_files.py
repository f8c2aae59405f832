"""Labels from a file to a score: the model that answers as the rows say has accuracy 1, whatever kind of file it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.rows import LoadRows
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks.text_classification import TextClassification

STARS = ("1", "2", "3", "4", "5")


def accuracy(folder: Path, names: Sequence[str], answers: Sequence[int], task: TextClassification) -> float:
    """Score a model with these names of its outputs, which answers so, on the rows in `folder`/data."""
    config = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "out").mkdir()
    job = Job(load=None, timer=None, task=task)  # type: ignore[arg-type]
    LoadRows(role="validation").run({"files": Artifact("files", folder / "data", "", {})}, folder / "out", job)
    rows = read_jsonl(folder / "out" / "rows.jsonl")
    outputs = [{"logits": np.eye(len(names), dtype=np.float32)[answer]} for answer in answers]
    features = [Feature(number, {}) for number in range(len(rows))]
    predictions = task.decode(rows, features, outputs, folder)
    return task.score(rows, {row["id"]: prediction for row, prediction in zip(rows, predictions, strict=True)}).metrics[
        "accuracy"
    ]


def put(folder: Path, name: str, labels: Sequence[Any], classes: Sequence[str] = ()) -> None:
    (folder / "data").mkdir()
    rows = [{"id": str(i), "text": "x", "label": label} for i, label in enumerate(labels)]
    path = folder / "data" / name
    if name.endswith(".csv"):
        path.write_text("id,text,label\n" + "".join(f"{i},x,{label}\n" for i, label in enumerate(labels)))
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        features = {"label": {"names": list(classes), "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if classes else None
        parquet.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("names", "labels", "answers"),
    [
        (STARS, STARS, range(5)),
        (STARS, (1, 2, 5), (0, 1, 4)),
        (("false", "true"), ("true", "false"), (1, 0)),
        (("LABEL_0", "LABEL_1"), (1, 0), (1, 0)),
        (("bad", "good"), (1, 0), (1, 0)),
        (("bad", "good"), ("good", "bad"), (1, 0)),
        (("NA", "007"), ("007", "NA"), (1, 0)),
    ],
)
def test_labels_are_names_first_and_numbers_then(
    tmp_path: Path, name: str, names: Sequence[str], labels: Sequence[Any], answers: Sequence[int]
) -> None:
    put(tmp_path, name, labels)
    assert accuracy(tmp_path, names, answers, TextClassification()) == 1.0


def test_names_of_a_parquet_file_in_another_order_than_the_models(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", [0, 1, 1], classes=["good", "bad"])
    assert accuracy(tmp_path, ["bad", "good"], [1, 0, 0], TextClassification()) == 1.0


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_numbers_have_the_names_that_the_recipe_gives(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, [0, 1, 1], classes=["x", "y"])
    task = TextClassification(labels=("good", "bad"))
    assert accuracy(tmp_path, ["bad", "good"], [1, 0, 0], task) == 1.0
