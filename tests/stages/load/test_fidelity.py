"""The reference is compared with transformers itself, and every kind of fault stops the build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import media
import models
import numpy as np
import pytest
import transformers
from stages.conftest import job_for, task_named

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import ROWS, write_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load import fidelity
from cpu_pipeline.stages.load.fidelity import REPORT, FidelityFacts, LoadFidelity
from cpu_pipeline.stages.load.model import LoadModel
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._labels import LabelTask
from cpu_pipeline.tasks.image_classification import Processor
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.text_classification import TextClassification
from cpu_pipeline.tasks.token_classification import TokenClassification

KINDS = {
    "question-answering": "bert",
    "text-classification": "roberta",
    "token-classification": "roberta",
    "sentence-similarity": "minilm",
}


def load(files: Path, out: Path) -> Path:
    out.mkdir()
    LoadModel().run({"files": Artifact("files", files, "", {})}, out, Job(load=None, timer=None))  # type: ignore[arg-type]
    return out


def check(original: Path, loaded: Path, task: str, home: Path, format: str = "hf", **data: Path) -> FidelityFacts:
    out = home / f"checked-{len(list(home.iterdir()))}"
    out.mkdir()
    inputs = {"model": Artifact(format, loaded, "", {}), "files": Artifact("files", original, "", {})}
    facts = LoadFidelity().run(inputs, out, job_for(task, data=data))
    assert json.loads((out / REPORT).read_text()) == facts.model_dump()
    return facts


def classifier(out: Path, family: str = "Bert", **config: Any) -> Path:
    """Write a classifier of another family with BERT's tokenizer."""
    models.make("bert", out, "text-classification")
    said = json.loads((out / "config.json").read_text())
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    settings = getattr(transformers, f"{family}Config")(
        **{**wide, "vocab_size": said["vocab_size"], "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, **config}
    )
    model = getattr(transformers, f"{family}ForSequenceClassification")(settings)
    models.fill(model, 0)
    model.save_pretrained(out)
    return out


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[str], tuple[Path, Path, Path]]:
    """Give a task's model as fetched and as loaded, and its rows."""

    def give(task: str) -> tuple[Path, Path, Path]:
        original = models.make(KINDS[task], tmp_path / "original", task)
        rows = models.write_rows(tmp_path / "rows" / ROWS, task, 40)
        return original, load(original, tmp_path / "loaded"), rows

    return give


@pytest.mark.parametrize("task", KINDS)
def test_a_faithful_reference_passes(pair: Any, task: str, tmp_path: Path) -> None:
    original, loaded, rows = pair(task)
    facts = check(original, loaded, task, tmp_path, validation=rows)
    assert facts.rows == {"validation": 32}
    assert facts.inputs == facts.answers >= (64 if task == "sentence-similarity" else 32)


def test_both_roles_give_half_of_the_sample(pair: Any, tmp_path: Path) -> None:
    original, loaded, rows = pair("text-classification")
    more = models.write_rows(tmp_path / "more" / ROWS, "text-classification", 5, seed=1)
    facts = check(original, loaded, "text-classification", tmp_path, validation=rows, calibration=more)
    assert facts.rows == {"validation": 16, "calibration": 5} and facts.answers == 21


def test_of_an_exported_model_the_inputs_alone_are_compared(pair: Any, tmp_path: Path) -> None:
    original, loaded, rows = pair("text-classification")
    facts = check(original, loaded, "text-classification", tmp_path, "onnx", validation=rows)
    assert (facts.inputs, facts.answers) == (32, 0)
    assert LoadFidelity().backends({"model": "onnx", "files": "files"}) == set()
    assert LoadFidelity().backends({"model": "hf", "files": "files"}) == {"hf"}


@pytest.mark.parametrize("mask", [False, True])
def test_sound_is_compared_too(mask: bool, tmp_path: Path) -> None:
    original = media.wav2vec2(tmp_path / "original", mask)
    loaded, rows = load(original, tmp_path / "loaded"), media.sounds(tmp_path / "rows" / ROWS, 3)
    facts = check(original, loaded, "audio-classification", tmp_path, validation=rows)
    assert facts.inputs == facts.answers == 3


def test_images_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = media.vit(tmp_path / "original")
    loaded, rows = load(original, tmp_path / "loaded"), media.images(tmp_path / "rows" / ROWS, 3)
    facts = check(original, loaded, "image-classification", tmp_path, validation=rows)
    assert facts.inputs == facts.answers == 3
    read = Processor.read
    monkeypatch.setattr(Processor, "read", lambda model: replace(read(model), mean=[0.4, 0.5, 0.5]))
    with pytest.raises(RecipeError, match="is not read as transformers reads it: pixel_values is"):
        check(original, loaded, "image-classification", tmp_path, validation=rows)


def test_another_normalizer_is_named(pair: Any, tmp_path: Path) -> None:
    original, loaded, _ = pair("sentence-similarity")
    said = json.loads((loaded / "tokenizer.json").read_text())
    said["normalizer"]["lowercase"] = False
    (loaded / "tokenizer.json").write_text(json.dumps(said))
    rows = tmp_path / "upper.jsonl"
    write_jsonl(rows, [{"id": "shout", "sentence1": "GOOD", "sentence2": "good"}])
    with pytest.raises(RecipeError) as caught:
        check(original, loaded, "sentence-similarity", tmp_path, validation=rows)
    assert "row 'shout' of data.validation is not read as transformers reads it: input_ids are" in str(caught.value)
    assert "(they differ in normalizer)" in str(caught.value)


def test_token_types_that_the_tokenizer_does_not_give_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = classifier(tmp_path / "original")
    said = json.loads((original / "tokenizer_config.json").read_text())
    (original / "tokenizer_config.json").write_text(json.dumps({**said, "model_input_names": ["input_ids"]}))
    loaded = load(original, tmp_path / "loaded")
    rows = tmp_path / ROWS
    write_jsonl(rows, [{"id": "1", "text": "anna", "text_pair": "won"}])
    assert check(original, loaded, "text-classification", tmp_path, validation=rows).answers == 1
    monkeypatch.setattr(_tokens, "inputs", lambda encoding, _: {
        "input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids,
    })  # fmt: skip
    with pytest.raises(RecipeError, match=r"token_type_ids are \[0, 0, 1, 1\] .*, and \[0, 0, 0, 0\]"):
        check(original, loaded, "text-classification", tmp_path, validation=rows)


def test_a_side_that_is_cut_is_named(pair: Any, tmp_path: Path) -> None:
    original, loaded, _ = pair("text-classification")
    said = json.loads((original / "tokenizer_config.json").read_text())
    (original / "tokenizer_config.json").write_text(json.dumps({**said, "truncation_side": "left"}))
    rows = tmp_path / ROWS
    write_jsonl(rows, [{"id": "1", "text": "anna won in rome " * 60}])
    with pytest.raises(RecipeError, match="differ in truncation_side"):
        check(original, loaded, "text-classification", tmp_path, validation=rows)


def test_a_model_that_answers_otherwise_is_named(pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, loaded, rows = pair("text-classification")
    answer = hf.Eager.__call__
    monkeypatch.setattr(
        hf.Eager, "__call__", lambda self, arrays: {k: v + np.float32(0.01) for k, v in answer(self, arrays).items()}
    )
    with pytest.raises(RecipeError, match=r"row '0-0' of data.validation is not answered .*logits is .* transformers"):
        check(original, loaded, "text-classification", tmp_path, validation=rows)


def test_padding_that_disturbs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = classifier(tmp_path / "original", "ConvBert", embedding_size=32)
    loaded = load(original, tmp_path / "loaded")
    rows = models.write_rows(tmp_path / ROWS, "text-classification", 8)
    assert check(original, loaded, "text-classification", tmp_path, validation=rows).answers == 8
    monkeypatch.setattr(_tokens, "UNPADDED", frozenset())
    with pytest.raises(RecipeError, match="by itself and without padding: logits is"):
        check(original, loaded, "text-classification", tmp_path, validation=rows)


@pytest.mark.parametrize(
    ("task", "owner", "tampered", "says"),
    [
        ("text-classification", LabelTask, lambda p: {**p, "name": {"POSITIVE": "NEGATIVE"}.get(p["name"], "POSITIVE")},
         "the label is '.*', and '.*' with transformers"),
        ("text-classification", LabelTask, lambda p: {**p, "score": p["score"] / 2}, "the share of"),
        ("token-classification", TokenClassification, lambda p: {**p, "tags": ["B-PER" if tag != "B-PER" else "O"
         for tag in p["tags"]]}, "the tag of word 0 is '.*', and '.*' with transformers"),
        ("question-answering", QuestionAnswering, lambda p: {**p, "prediction_text": "elsewhere"},
         "the answer is 'elsewhere', and '.*' with transformers"),
        ("sentence-similarity", None, lambda p: {**p, "cosine": p["cosine"] - 0.1}, r"cosine is"),
    ],
)  # fmt: skip
def test_wrong_post_processing_is_named(
    pair: Any, task: str, owner: Any, tampered: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, loaded, rows = pair(task)
    owner = owner or type(task_named(task))
    decode = owner.decode
    monkeypatch.setattr(owner, "decode", lambda self, *given: [tampered(p) for p in decode(self, *given)])
    with pytest.raises(RecipeError, match=says):
        check(original, loaded, task, tmp_path, validation=rows)


def test_a_decoder_answers_batches_as_transformers_answers_single_texts(tmp_path: Path) -> None:
    original = classifier(tmp_path / "original", "GPT2", n_embd=32, n_layer=2, n_head=4, pad_token_id=None)
    said = json.loads((original / "tokenizer_config.json").read_text())
    names = ["input_ids", "attention_mask"]
    (original / "tokenizer_config.json").write_text(json.dumps(
        {**said, "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    ))  # fmt: skip
    loaded = load(original, tmp_path / "loaded")
    assert json.loads((loaded / "config.json").read_text())["pad_token_id"] == 0
    assert list(TextClassification().input_kinds(loaded)) == names
    rows = models.write_rows(tmp_path / ROWS, "text-classification", 20)
    assert check(original, loaded, "text-classification", tmp_path, validation=rows).answers == 20
    config = json.loads((loaded / "config.json").read_text())
    (loaded / "config.json").write_text(json.dumps({**config, "pad_token_id": 7}))
    rows = tmp_path / "ends.jsonl"
    write_jsonl(rows, [{"id": "1", "text": "anna won"}, {"id": "2", "text": "rome"}])
    shutil.rmtree(tmp_path / "loaded")
    assert check(original, load(original, tmp_path / "loaded"), "text-classification", tmp_path, validation=rows)


def test_a_task_that_transformers_has_no_way_for_is_run_on_its_own_inputs(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, loaded, rows = pair("text-classification")
    monkeypatch.setattr(fidelity._official, "of", lambda task: None)
    facts = check(original, loaded, "text-classification", tmp_path, validation=rows)
    assert (facts.inputs, facts.answers) == (0, 32)


def test_a_row_that_transformers_cannot_answer_is_named(pair: Any, tmp_path: Path, monkeypatch: Any) -> None:
    original, loaded, rows = pair("text-classification")

    def refuse(self: Any, input_ids: Any = None, attention_mask: Any = None) -> Any:
        raise ValueError("no answer")

    monkeypatch.setattr(fidelity, "_load", lambda *_: type("Model", (), {"forward": refuse, "__call__": refuse})())
    with pytest.raises(RecipeError, match=r"row '0-0' of data.validation: transformers itself cannot answer it"):
        check(original, loaded, "text-classification", tmp_path, validation=rows)
