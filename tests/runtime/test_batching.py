"""Batches: padded by kind of input, in the same order on every run, through sessions with and without state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import TOKENS, InputKind, StatefulSession
from cpu_pipeline.runtime.batching import answer, batches, call, pad
from cpu_pipeline.tasks import Feature, Task
from cpu_pipeline.tasks.text_classification import TextClassification

NAMES = tuple(TOKENS)


def before(features: Sequence[Feature], names: Sequence[str], padding: int, length: int | None = None) -> Any:
    """Pad as version 0.1.0 did, which knew tokens alone."""
    width = length or max(len(f.inputs["input_ids"]) for f in features)
    arrays = {}
    for name in names:
        fill = {"attention_mask": 0, "token_type_ids": 0}.get(name, padding)
        arrays[name] = np.full((len(features), width), fill, dtype=np.int64)
        for i, feature in enumerate(features):
            ids = feature.inputs[name]
            arrays[name][i, : len(ids)] = ids
    return arrays


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("name", ["question-answering", "token-classification", "sentence-similarity"])
def test_batches_of_tokens_are_what_they_were(tmp_path: Path, kind: str, name: str) -> None:
    task, model = tasks.get(name)(), models.make(kind, tmp_path, name)
    rows = [{**task.row(row), "id": row["id"]} for row in models.rows(name, 12)]
    features, kinds = task.encode(rows, model), task.input_kinds(model)
    padding = {"bert": 0, "roberta": 1}[kind]
    order = sorted(range(len(features)), key=lambda i: (-len(features[i].inputs["input_ids"]), i))
    assert [number for numbers in batches(features, 5, kinds) for number in numbers] == order
    for numbers in batches(features, 5, kinds):
        batch = [features[number] for number in numbers]
        for length in (None, 600):
            ours, theirs = pad(batch, NAMES, kinds, length), before(batch, NAMES, padding, length)
            assert list(ours) == list(theirs)
            for key, array in theirs.items():
                assert ours[key].dtype == np.int64
                np.testing.assert_array_equal(ours[key], array)


def test_each_kind_is_padded_by_its_own_rule() -> None:
    def feature(frames: int) -> Feature:
        return Feature(0, {"sound": np.ones((2, frames)), "mask": [1] * frames, "image": np.full((1, 2, 2), frames)})

    kinds = {"sound": InputKind("float32", 1, -2.0), "mask": InputKind(), "image": InputKind("float32", None)}
    arrays = pad([feature(1), feature(3)], ("image", "mask", "sound"), kinds)
    assert [(name, array.shape, array.dtype.name) for name, array in arrays.items()] == [
        ("image", (2, 1, 2, 2), "float32"), ("mask", (2, 3), "int64"), ("sound", (2, 2, 3), "float32"),
    ]  # fmt: skip
    assert arrays["sound"][0].tolist() == [[1, -2, -2], [1, -2, -2]] and arrays["mask"].tolist() == [[1, 0, 0], [1] * 3]


def test_what_does_not_fit_together_is_refused() -> None:
    images = [Feature(0, {"image": np.zeros(shape)}) for shape in ((3, 2, 2), (3, 2, 4))]
    kinds = {"image": InputKind("float32", None)}
    with pytest.raises(StageFailed, match=r"image: \[3, 2, 4\] and \[3, 2, 2\] do not fit into one batch"):
        pad(images, ("image",), kinds)
    assert sorted(map(tuple, batches(images, 2, kinds))) == [(0,), (1,)]
    with pytest.raises(StageFailed, match="the model takes position_ids, and the task gives input_ids"):
        pad([Feature(0, {"input_ids": [1]})], ("position_ids",), TOKENS)


class Remembering:
    """A session with state, as a decoder with a cache: it answers the sum of all tokens since its last reset."""

    inputs = ("input_ids",)

    def __init__(self) -> None:
        self.total: Any = 0
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, arrays: Mapping[str, Any], /) -> dict[str, Any]:
        self.calls.append(arrays["input_ids"].shape)
        self.total = self.total + arrays["input_ids"].sum(axis=1)
        return {"next": self.total.astype(np.float32)}

    def reset(self) -> None:
        self.total = 0


class Counting(TextClassification):
    """A task that generates: the prompt in one call, then token after token, each on the state of those before."""

    steps: int = 3
    outputs = ("tokens",)

    def run(self, session: Any, arrays: Any) -> dict[str, Any]:
        written = []
        for _ in range(self.steps):
            token = session(arrays)["next"].astype(np.int64)[:, None]
            written.append(token)
            arrays = {"input_ids": token}
        return {"tokens": np.concatenate(written, axis=1)}

    def decode(self, rows: Any, features: Any, outputs: Any, model: Path) -> list[Any]:
        texts = [" ".join(map(str, each["tokens"])) for each in outputs]
        return [{"id": row["id"], "text": text} for row, text in zip(rows, texts, strict=True)]


def test_a_task_generates_through_a_session_with_state(tmp_path: Path) -> None:
    session, task = Remembering(), Counting()
    assert isinstance(session, StatefulSession)
    prompts = ([1, 2], [5], [1, 1, 1])
    features = [Feature(row, {"input_ids": ids}) for row, ids in enumerate(prompts)]
    answers = answer(session, features, task, TOKENS, 2)
    predictions = task.decode([{"id": str(i)} for i in range(3)], features, answers, tmp_path)
    # Each token is the sum of all before it: a state that outlived its batch, or a call, would show.
    assert [prediction["text"] for prediction in predictions] == ["3 6 12", "5 10 20", "3 6 12"]
    assert session.calls == [(2, 3), (2, 1), (2, 1), (1, 1), (1, 1), (1, 1)]


def test_a_single_call_begins_reset() -> None:
    session = Remembering()
    arrays = {"input_ids": np.array([[1, 2]])}
    assert [float(call(session, arrays)["next"][0]) for _ in range(2)] == [3.0, 3.0]
    assert [float(session(arrays)["next"][0]) for _ in range(2)] == [6.0, 9.0]


def test_a_plain_task_calls_a_session_once_for_each_batch() -> None:
    class Plain:
        inputs = ("input_ids",)

        def __call__(self, arrays: Any, /) -> dict[str, Any]:
            return {"logits": arrays["input_ids"].astype(np.float32)}

    assert not isinstance(Plain(), StatefulSession)
    features = [Feature(i, {"input_ids": [i] * (i + 1)}) for i in range(5)]
    task: Task = tasks.get("token-classification")()
    answers = answer(Plain(), features, task, TOKENS, 2)
    assert [each["logits"].tolist() for each in answers] == [[float(i)] * (i + 1) for i in range(5)]
