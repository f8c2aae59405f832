"""The agreement gate passes a model against itself, and sees NaN, a wrong scale, and answers that differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.model_io import TOKENS, InputKind
from cpu_pipeline.runtime.parity import compare
from cpu_pipeline.stages._base import Job, Verdict, stored_facts
from cpu_pipeline.stages.validate.agreement import AgreementFacts, ValidateAgreement, arrange, spread
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks.text_classification import TextClassification

QA = "question-answering"
Change = Callable[[str, Any], Any]
Run = Callable[..., AgreementFacts]


@pytest.fixture(scope="session")
def float_model(checkpoint: Callable[..., Artifact]) -> Artifact:
    """Give the checkpoint that is the reference."""
    return checkpoint("bert", QA)


@pytest.fixture
def changed(float_model: Artifact, tmp_path: Path) -> Callable[[Change], Artifact]:
    """Copy the checkpoint with every tensor changed by a function of its name and value."""

    def make(change: Change) -> Artifact:
        path = tmp_path / "changed"
        path.mkdir()
        for file in float_model.path.iterdir():
            if file.suffix != ".safetensors":
                (path / file.name).write_bytes(file.read_bytes())
        tensors = load_file(float_model.path / "model.safetensors")
        made = {name: np.ascontiguousarray(change(name, value)) for name, value in tensors.items()}
        save_file(made, path / "model.safetensors", metadata={"format": "pt"})
        return Artifact("hf", path, "", {})

    return make


@pytest.fixture
def run(float_model: Artifact, out: Path, job: Callable[..., Job], tmp_path: Path) -> Run:
    """Compare a candidate with the reference, on rows or on random tokens."""

    def compare(candidate: Artifact, rows: int = 12, **options: Any) -> AgreementFacts:
        data = {"validation": models.write_rows(tmp_path / "rows.jsonl", QA, rows)} if rows else {}
        stage = ValidateAgreement(**{"samples": 16, "max_difference": 1e9, **options})
        return stage.run({"candidate": candidate, "reference": float_model}, out, job(QA, data=data))

    return compare


def agreement(**found: Any) -> AgreementFacts:
    """Return the facts of a comparison that found no difference, with what is to be otherwise."""
    equal = {"max_abs": 0, "mean_abs": 0, "cosine_min": 1, "cosine_mean": 1, "same_top": 1, "nonfinite": 0}
    about = {"values": 8, "shapes": [[1, 4]], "sequences": 1, "on": "rows"}
    return AgreementFacts.model_validate({**equal, **about, **found})


def failed(facts: AgreementFacts, **bounds: float) -> list[str]:
    return [v.check for v in ValidateAgreement(**bounds).judge(facts) if not v.passed]


STRICT = {"max_difference": 1e-4, "mean_difference": 1e-5, "cosine": 0.9999, "same_top": 1.0}


@pytest.mark.parametrize("rows", [12, 0])
def test_a_model_agrees_with_itself(run: Run, float_model: Artifact, rows: int) -> None:
    facts = run(float_model, rows)
    assert failed(facts, **STRICT) == []
    assert failed(facts, max_difference=0, mean_difference=0, cosine=1 - 1e-9, same_top=1) == []
    assert facts.on == ("rows" if rows else "random tokens")
    assert facts.values > 0 and facts.nonfinite == 0


def test_an_export_agrees_with_its_checkpoint(run: Run, exported: Callable[..., Artifact]) -> None:
    facts = run(exported("bert", QA))
    assert failed(facts, **STRICT) == []
    assert 0 < facts.max_abs < 1e-4


@pytest.mark.parametrize("where", ["candidate", "reference"])
def test_nan_fails_whatever_the_bounds(
    where: str, changed: Callable[[Change], Artifact], float_model: Artifact, out: Path, job: Callable[..., Job]
) -> None:
    def poison(name: str, value: Any) -> Any:
        if name == "qa_outputs.bias":
            value = value.copy()
            value[0] = np.nan
        return value

    sides = {"candidate": float_model, "reference": float_model} | {where: changed(poison)}
    facts = ValidateAgreement(max_difference=1e9).run(sides, out, job(QA))
    assert facts.nonfinite > 0
    assert failed(facts, max_difference=1e9) == ["finite"]
    assert failed(facts, cosine=-0.999) == ["finite"]


def test_a_wrong_scale_fails(run: Run, changed: Callable[[Change], Artifact]) -> None:
    def quantize(name: str, value: Any) -> Any:
        """Round to int8 with a scale fifty times too small, so that most weights clip."""
        if value.ndim != 2 or "embeddings" in name:
            return value
        scale = np.abs(value).max() / 127 / 50
        return (np.clip(np.round(value / scale), -127, 127) * scale).astype(value.dtype)

    facts = run(changed(quantize))
    assert failed(facts, cosine=0.99, same_top=0.95) == ["cosine", "same_top"]
    assert facts.nonfinite == 0


def test_a_right_scale_passes(run: Run, changed: Callable[[Change], Artifact]) -> None:
    def quantize(name: str, value: Any) -> Any:
        if value.ndim != 2 or "embeddings" in name:
            return value
        scale = np.abs(value).max(axis=1, keepdims=True) / 127
        return (np.round(value / scale) * scale).astype(value.dtype)

    facts = run(changed(quantize))
    assert failed(facts, cosine=0.99) == []
    assert facts.max_abs > 0


class Maskless:
    """A session that takes padding for text."""

    def __init__(self, session: Any) -> None:
        self.session, self.inputs, self.padded = session, session.inputs, 0

    def __call__(self, arrays: Any) -> Any:
        self.padded += int((arrays["attention_mask"] == 0).any())
        return self.session({**arrays, "attention_mask": np.ones_like(arrays["attention_mask"])})


def test_a_model_that_takes_padding_for_text_fails(float_model: Artifact, out: Path, job: Callable[..., Job]) -> None:
    plain = job(QA)
    sessions = [Maskless(plain.load(float_model)), plain.load(float_model)]
    remaining = iter(sessions)
    facts = ValidateAgreement(**STRICT).run(
        {"candidate": float_model, "reference": float_model}, out, job(QA, load=lambda _: next(remaining))
    )
    assert sessions[0].padded > 0
    assert "max_difference" in failed(facts, **STRICT)


def test_a_changed_threshold_judges_without_measuring(run: Run, float_model: Artifact) -> None:
    assert ValidateAgreement.unkeyed == {"max_difference", "mean_difference", "cosine", "same_top", "waive"}
    update = {"max_abs": 0.5, "mean_abs": 0.1, "cosine_min": 0.8, "same_top": 0.6}
    facts = run(float_model).model_copy(update=update)
    for name, good, bad in (
        ("max_difference", 0.5, 0.49), ("mean_difference", 0.1, 0.09), ("cosine", 0.8, 0.81), ("same_top", 0.6, 0.61)
    ):  # fmt: skip
        assert failed(facts, **{name: good}) == []
        assert failed(facts, **{name: bad}) == [name]


@pytest.mark.parametrize("fact", ["max_abs", "mean_abs", "cosine_min", "same_top"])
def test_a_number_that_is_none_fails(fact: str) -> None:
    """NaN and infinity leave the worker as none."""
    facts = agreement()
    assert failed(facts, **STRICT) == []
    [verdict] = [v for v in ValidateAgreement(**STRICT).judge(agreement(**{fact: None})) if not v.passed]
    assert "NaN" in verdict.says


def test_nothing_compared_fails() -> None:
    assert failed(agreement(values=0, sequences=0), **STRICT) == ["finite"]


def test_verdicts_say_number_and_bound() -> None:
    facts = agreement(max_abs=0.25, same_top=0.5, sequences=2)
    found = ValidateAgreement(max_difference=0.1, same_top=0.9).judge(facts)
    assert found[1:] == [
        Verdict("max_difference", False, "max_difference 0.25 over 2 sequences, at most 0.1 asked", 0.25, 0.1),
        Verdict("same_top", False, "same_top 0.5 over 2 sequences, at least 0.9 asked", 0.5, 0.9),
    ]


def test_keeps_its_measurements(run: Run, float_model: Artifact, out: Path) -> None:
    facts = run(float_model)
    assert json.loads((out / "agreement.json").read_text()) == stored_facts(facts)


def test_samples_are_spread_over_the_rows() -> None:
    rows = [{"n": n} for n in range(100)]
    assert [row["n"] for row in spread(rows, 4)] == [0, 25, 50, 75]
    assert spread(rows, 200) == rows


def test_compares_single_sequences_and_padded_batches() -> None:
    features = [Feature(0, {"input_ids": [0] * length}) for length in (9, 3, 7, 5, 11, 4, 8, 6, 10, 12)]
    sizes = [[len(feature.inputs["input_ids"]) for feature in batch] for batch in arrange(features, TOKENS)]
    assert sizes[:4] == [[3], [5], [8], [10]]
    assert sizes[4:] == [[9, 3, 7, 5, 11, 4, 8, 6], [10, 12]]


def test_a_bound_that_could_not_fail_fails() -> None:
    """One number has no largest value and no direction; one answer for all rows agrees with any constant."""
    number = {"same_top": None, "choices": 0}
    facts = agreement(**number)
    assert failed(facts, **STRICT) == ["cosine", "same_top"]
    [verdict] = [v for v in ValidateAgreement(same_top=1.0).judge(facts) if v.check == "same_top"]
    assert verdict.says == (
        "same_top: the output is one number, which chooses nothing; bound `max_difference` or `mean_difference` instead"
    )
    assert failed(facts, max_difference=1e-4) == []
    facts = agreement(choices=1, sequences=64)
    assert failed(facts, **STRICT) == ["same_top"]
    [verdict] = [v for v in ValidateAgreement(same_top=1.0).judge(facts) if not v.passed]
    assert verdict.says.startswith("same_top: the reference chooses one answer for all 64 sequences")
    # Noise may well have one answer; there, differences count.
    assert failed(agreement(choices=1, sequences=64, on="random tokens"), same_top=1.0) == []
    assert failed(agreement(choices=2, sequences=64), **STRICT) == []
    assert failed(agreement(), **STRICT) == []  # measured before choices were counted


@pytest.mark.parametrize(("kind", "same_top", "choices"), [("single", 1.0, 3), ("multi", 0.5, 4)])
def test_sets_of_labels_agree_as_a_whole(kind: Any, same_top: float, choices: int, tmp_path: Path) -> None:
    """Largest labels are alike, and yet two of four rows have another set."""
    names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    model = models.make("bert", tmp_path / "model", "text-classification", **names)
    theirs = [[2.0, 1.0, -1.0], [-1.0, -2.0, -3.0], [0.5, 3.0, 1.0], [-1.0, -1.0, 9.0]]
    ours = [[2.0, -1.0, -1.0], [-1.0, -2.0, -3.0], [-0.5, 3.0, 1.0], [-1.0, -1.0, 9.0]]
    features = [Feature(i, {"input_ids": [2, 5, 3]}) for i in range(4)]
    sides = (_Fixed(ours), _Fixed(theirs))
    choice = TextClassification(kind=kind).choice(model)
    found = compare(*sides, [features], {"input_ids": InputKind()}, False, choice)
    assert (found["same_top"], found["choices"]) == (same_top, choices)


class _Fixed:
    """Answers every batch with the same logits."""

    inputs = ("input_ids",)

    def __init__(self, logits: list[list[float]]) -> None:
        self.logits = np.float32(logits)

    def __call__(self, arrays: Any) -> Any:
        return {"logits": self.logits}
