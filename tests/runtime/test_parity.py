"""compare: differences are seen where they are, and padding is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
from conftest import ROOT

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime.parity import compare, parity, require_parity
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks._synthetic import tokens
from cpu_pipeline.tasks.question_answering import QuestionAnswering


class Fake:
    """A session that answers with a function of the arrays it gets."""

    inputs = ("input_ids", "attention_mask")

    def __init__(self, **outputs: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.outputs = outputs

    def __call__(self, arrays: dict[str, np.ndarray], /) -> dict[str, np.ndarray]:
        given = arrays["input_ids"].astype(np.float32), arrays["attention_mask"]
        return {name: function(*given).astype(np.float32) for name, function in self.outputs.items()}


def feature(*ids: int) -> Feature:
    return Feature(0, {"input_ids": list(ids), "attention_mask": [1] * len(ids)})


BATCHES = [[feature(3, 1, 2), feature(5, 4)], [feature(7, 9, 8, 6)]]
SAME = Fake(logits=lambda ids, mask: ids)


def test_equal_answers_are_equal() -> None:
    facts = compare(SAME, SAME, BATCHES, TOKENS, per_token=True)
    assert facts == {
        "max_abs": 0.0, "mean_abs": 0.0, "cosine_min": pytest.approx(1), "cosine_mean": pytest.approx(1),
        "same_top": 1.0, "choices": 2, "nonfinite": 0, "values": 9, "shapes": [[2, 3], [1, 4]],
    }  # fmt: skip
    require_parity(facts, 1e-9, "here")


def test_padding_counts_only_where_outputs_are_per_sequence() -> None:
    noisy = Fake(logits=lambda ids, mask: np.where(mask == 1, ids, 99))
    assert compare(noisy, SAME, BATCHES, TOKENS, per_token=True)["max_abs"] == 0.0
    assert compare(noisy, SAME, BATCHES, TOKENS, per_token=False)["max_abs"] == 99.0


def test_differences_are_measured() -> None:
    shifted = Fake(logits=lambda ids, mask: ids + (ids == 8) * 3)
    facts = compare(shifted, SAME, BATCHES, TOKENS, per_token=True)
    assert facts["max_abs"] == 3.0 and facts["mean_abs"] == pytest.approx(3 / 9)
    assert facts["same_top"] == pytest.approx(2 / 3)
    assert facts["cosine_min"] < facts["cosine_mean"] < 1
    with pytest.raises(
        StageFailed, match=r"here: .*up to 3 \(mean 0.333, same top answer 66.7%\) where 2.9 .*2x3, 1x4"
    ):
        require_parity(facts, 2.9, "here")
    require_parity(facts, 3.0, "here")


def test_the_top_is_over_positions_for_spans_and_over_classes_for_labels() -> None:
    def classes(scale: float) -> Fake:
        return Fake(logits=lambda ids, mask: np.stack([ids, scale * ids], axis=-1))

    facts = compare(classes(0.5), classes(2.0), BATCHES, TOKENS, per_token=True)
    assert facts["same_top"] == 0.0
    sums = [Fake(logits=lambda ids, mask, s=s: np.stack([ids.sum(1), s * ids.sum(1)], axis=-1)) for s in (0.5, 2)]
    assert compare(*sums, BATCHES, TOKENS, per_token=False)["same_top"] == 0.0
    assert compare(sums[0], sums[0], BATCHES, TOKENS, per_token=False)["values"] == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(value: float) -> None:
    broken = Fake(logits=lambda ids, mask: np.where(ids == 9, value, ids))
    for pair in ((broken, SAME), (SAME, broken), (broken, broken)):
        facts = compare(*pair, BATCHES, TOKENS, per_token=True)
        assert facts["nonfinite"] == 1 and facts["values"] == 9 and np.isfinite(facts["max_abs"])
        with pytest.raises(StageFailed, match="1 of 9 answers are NaN or infinite"):
            require_parity(facts, 1e9, "here")


def test_nothing_compared_never_passes() -> None:
    with pytest.raises(StageFailed, match="nothing was compared"):
        require_parity(compare(SAME, SAME, [], TOKENS, per_token=True), 1.0, "here")


def test_a_baked_shape_is_named() -> None:
    baked = Fake(logits=lambda ids, mask: ids[:, :2])
    with pytest.raises(StageFailed, match=r"answer to a batch of \[2, 3\] is \[2, 2\], not \[2, 3\]"):
        compare(baked, SAME, BATCHES, TOKENS, per_token=True)


@pytest.mark.parametrize(("kind", "ends"), [("bert", (2, 3)), ("roberta", (0, 2))])
def test_synthetic_batches_look_like_text(tmp_path: Path, kind: str, ends: tuple[int, int]) -> None:
    models.make(kind, tmp_path)
    batches = tokens(tmp_path)
    assert batches == tokens(tmp_path) and batches != tokens(tmp_path, seed=1)
    lengths = [[len(f.inputs["input_ids"]) for f in batch] for batch in batches]
    assert [(len(batch), max(batch)) for batch in lengths] == [(1, 6), (2, 17), (3, 40), (1, 128), (4, 64)]
    assert any(len(set(batch)) > 1 for batch in lengths), "no batch is padded"
    for one in (f for batch in batches for f in batch):
        ids = one.inputs["input_ids"]
        assert (ids[0], ids[-1]) == ends and min(ids) >= 0 and max(ids) < 420
        assert any(one.inputs["token_type_ids"]) == (kind == "bert")


def test_synthetic_batches_fit_the_positions(tmp_path: Path) -> None:
    models.make("roberta", tmp_path, max_position_embeddings=34)
    assert max(len(f.inputs["input_ids"]) for batch in tokens(tmp_path) for f in batch) == 32
    models.make("bert", tmp_path, max_position_embeddings=34)
    assert max(len(f.inputs["input_ids"]) for batch in tokens(tmp_path) for f in batch) == 34


def test_parity_judges_on_synthetic_batches(tmp_path: Path) -> None:
    models.make("bert", tmp_path)
    task = QuestionAnswering()
    assert [4, 64] in parity(SAME, SAME, tmp_path, task, 1e-6, "here")["shapes"]
    off = Fake(logits=lambda ids, mask: ids + 0.01)
    with pytest.raises(StageFailed, match=r"up to 0\.01"):
        parity(off, SAME, tmp_path, task, 1e-3, "here")


def test_a_cosine_does_not_follow_the_number_of_threads() -> None:
    """Reports are files with digests: numpy's norm of a long vector is another with another number of threads."""
    program = (
        "import numpy as np; from cpu_pipeline.runtime.parity import _cosine; a, b = np.random.default_rng(0).normal("
        "size=(2, 200, 768)); print([_cosine(a * k, b * k + a) for k in (1, 1.7, 3.3)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
