"""hf: checkpoints load in float32 and whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import transformers

from cpu_pipeline.backends import hf
from cpu_pipeline.core import repo_files
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification

TASK = QuestionAnswering()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.make("bert", tmp_path / "model")


def batch(names: tuple[str, ...], size: int = 2, length: int = 9) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 100, (size, length))
    return {name: ids if name == "input_ids" else np.full_like(ids, name == "attention_mask") for name in names}


@pytest.mark.parametrize(("kind", "inputs"), [("bert", 3), ("roberta", 2), ("distilbert", 2)])
def test_inputs_and_outputs(tmp_path: Path, kind: str, inputs: int) -> None:
    session = hf.load(models.make(kind, tmp_path), TASK, 1)
    assert session.inputs == tuple(TOKENS)[:inputs]
    answer = session(batch(session.inputs))
    assert list(answer) == ["start_logits", "end_logits"]
    assert all(value.shape == (2, 9) and value.dtype == np.float32 for value in answer.values())
    assert np.ptp(answer["start_logits"]) > 0.1, "a model whose answers are all alike tests nothing"
    again = session(batch(session.inputs))
    assert all((again[name] == answer[name]).all() for name in answer), "dropout is still on"


def test_threads_are_set_when_they_are_given(model: Path) -> None:
    for threads, there in ((2, 2), (1, 1), (0, 1)):
        hf.load(model, TASK, threads)
        assert torch.get_num_threads() == there


def test_checkpoints_in_half_precision_load_in_float32(tmp_path: Path) -> None:
    import transformers

    path = models.make("bert", tmp_path / "float32")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(path).half()
    model.save_pretrained(tmp_path / "half")
    loaded = hf.checkpoint(tmp_path / "half", TASK)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config._attn_implementation == "sdpa"


def test_a_head_that_is_not_there_is_not_made_up(model: Path) -> None:
    with pytest.raises(StageFailed, match=r"no weights for .*classifier.*ForSequenceClassification does not fit"):
        hf.load(model, TextClassification(), 1)


def test_an_encoder_needs_no_pooler(model: Path) -> None:
    answer = hf.load(model, SentenceSimilarity(), 1)(batch(tuple(TOKENS)))
    assert answer["last_hidden_state"].shape == (2, 9, models.HIDDEN)


def test_a_wrong_shape_is_named(model: Path) -> None:
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "vocab_size": 999}))
    with pytest.raises(StageFailed, match=r"shape of bert\.embeddings\.word_embeddings"):
        hf.load(model, TASK, 1)


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


BROKEN = {
    "weights cut in the header": cut("model.safetensors", 500),
    "weights cut": cut("model.safetensors", 9000),
    "weights empty": cut("model.safetensors", 0),
    "weights pickled": lambda path: torch.save({"x": torch.ones(2)}, path / "model.safetensors"),
    "weights gone": lambda path: (path / "model.safetensors").unlink(),
    "only pickles": lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
    "config cut": cut("config.json", 100),
    "config empty": cut("config.json", 0),
    "config a list": lambda path: (path / "config.json").write_text("[]"),
    "config not text": lambda path: (path / "config.json").write_bytes(b"\xff\xfe\x00"),
    "config of no model": lambda path: (path / "config.json").write_text('{"model_type": "nope"}'),
    "config of wrong types": lambda path: (path / "config.json").write_text(
        '{"model_type": "bert", "hidden_size": "x"}'
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files_are_a_failed_stage(model: Path, fault: str) -> None:
    BROKEN[fault](model)
    with pytest.raises(StageFailed, match="not a valid checkpoint") as caught:
        hf.load(model, TASK, 1)
    assert "\n" not in str(caught.value)


def test_code_of_a_checkpoint_never_runs(model: Path, tmp_path: Path) -> None:
    settings = json.loads((model / "config.json").read_text())
    settings |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForQuestionAnswering": "evil.M"},
    }
    (model / "config.json").write_text(json.dumps(settings))
    (model / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\nclass M: ...\n")
    with pytest.raises(StageFailed):
        hf.load(model, TASK, 1)
    assert not (tmp_path / "ran").exists()


def test_carry_takes_everything_but_the_model_s_weights(tmp_path: Path) -> None:
    source = models.make("minilm", tmp_path / "source", "sentence-similarity")
    for name in (
        "pytorch_model.bin",
        "model.onnx",
        "model.onnx_data",
        "openvino_model.xml",
        "cpu_pipeline.json",
        ".lock",
    ):
        (source / name).write_text("x")
    (source / "onnx").mkdir()
    (source / "onnx" / "model_O2.onnx").write_text("x")
    (source / ".cache").mkdir()
    (source / ".cache" / "note").write_text("x")
    (source / "3_Dense").mkdir()
    for name in ("model.safetensors", "pytorch_model.bin"):
        (source / "3_Dense" / name).write_text("x")
    repo_files.carry(source, tmp_path / "out")
    carried = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert carried == [
        "1_Pooling/config.json", "3_Dense/model.safetensors", "config.json", "modules.json",
        "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / "config.json").stat().st_nlink == 1


def test_an_architecture_without_sdpa_runs_its_own_attention(tmp_path: Path) -> None:
    models.make("bert", tmp_path)
    config = transformers.MPNetConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, pad_token_id=1
    )
    transformers.MPNetForQuestionAnswering(config).save_pretrained(tmp_path)
    assert hf.checkpoint(tmp_path, TASK).config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("family", "config", "expected"),
    [
        ("GPT2", {"n_embd": 32, "n_layer": 1, "n_head": 4}, ("input_ids", "attention_mask")),
        ("Bert", {}, ("input_ids", "attention_mask", "token_type_ids")),
        ("Roberta", {"type_vocab_size": 1}, ("input_ids", "attention_mask")),
        ("DistilBert", {"dim": 32, "n_heads": 4, "n_layers": 1, "hidden_dim": 32}, ("input_ids", "attention_mask")),
    ],
)
def test_a_model_is_fed_what_it_takes_of_what_its_tokenizer_gives(
    tmp_path: Path, family: str, config: dict[str, Any], expected: tuple[str, ...]
) -> None:
    wide = {"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    settings = getattr(transformers, f"{family}Config")(**{**wide, "bos_token_id": 0, "eos_token_id": 0, **config})
    model = getattr(transformers, f"{family}Model")(settings)
    settings.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_input_names": ["input_ids", "attention_mask"]}')
    assert hf.inputs_of(model, TASK.input_kinds(tmp_path)) == expected


def test_a_batch_that_transformers_refuses_is_named(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    session = hf.Eager(transformers.GPT2ForSequenceClassification(config).eval(), ("logits",))
    ids = np.ones((2, 3), np.int64)
    with pytest.raises(StageFailed, match=r"batch with input_ids 2x3, attention_mask 2x3.*no padding token"):
        session({"input_ids": ids, "attention_mask": ids})
