"""What a model's directory says about its tokens: lengths, sides, inputs, padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import pytest
from transformers import AutoTokenizer

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._tokens import positions, settings, token_kinds
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.text_classification import TextClassification
from cpu_pipeline.tasks.token_classification import TokenClassification

ALL = ["input_ids", "attention_mask", "token_type_ids"]
HEADS = {
    TextClassification: "text-classification",
    TokenClassification: "token-classification",
    QuestionAnswering: "question-answering",
}


def folder(home: Path, config: dict[str, Any], **tokenizer: Any) -> Path:
    (home / "config.json").write_text(json.dumps(config))
    (home / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return home


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "qwen3", "max_position_embeddings": 40960}, 40960),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "longformer", "max_position_embeddings": 4098, "pad_token_id": 1}, 4096),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 0}, 512),
        ({"model_type": "led", "max_encoder_position_embeddings": 16384}, 16384),
        ({"model_type": "opt", "max_position_embeddings": 2048}, 2048),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "deberta-v2", "max_position_embeddings": 512, "position_biased_input": False}, None),
        ({"model_type": "deberta-v2", "max_position_embeddings": 512, "position_biased_input": True}, 512),
        ({"model_type": "xlnet", "max_position_embeddings": -1}, None),
        ({"model_type": "new"}, None),
    ],
)
def test_positions_are_those_of_the_architecture(tmp_path: Path, config: dict[str, Any], expected: int | None) -> None:
    assert positions(folder(tmp_path, config)) == expected


@pytest.mark.parametrize(
    ("positions", "longest", "expected"),
    [(512, None, 128), (512, 10**30, 128), (512, 64, 64), (100, None, 100), (100, 64, 64), (None, 1e30, 128)],
)
def test_a_default_length_is_cut_to_what_tokenizer_and_model_take(
    tmp_path: Path, positions: int | None, longest: Any, expected: int
) -> None:
    model = folder(tmp_path, {"model_type": "gpt2", "n_positions": positions}, model_max_length=longest)
    assert _tokens.longest(TextClassification(), model) == expected
    assert _tokens.longest(TextClassification(max_seq_length=99), model) == 99
    assert _tokens.set_length(TextClassification()) is None
    assert _tokens.set_length(TextClassification(max_seq_length=99)) == 99


@pytest.mark.parametrize("task", HEADS)
def test_a_length_above_the_positions_is_refused(tmp_path: Path, task: Any) -> None:
    model = models.make("bert", tmp_path / "bert", HEADS[task], max_position_embeddings=60)
    row = {"id": "1", "text": "a", "tokens": ["a"], "question": "a", "context": "a"}
    assert task().encode([row], model)
    with pytest.raises(RecipeError, match="max_seq_length is 61, but the model has 60 positions; lower it"):
        task(max_seq_length=61, **({"doc_stride": 8} if task is QuestionAnswering else {})).encode([row], model)


def test_passages_are_read_in_windows_of_what_the_model_takes(tmp_path: Path) -> None:
    model = models.make("bert", tmp_path / "bert", max_position_embeddings=60)
    features = QuestionAnswering().encode([{"id": "1", "question": "who", "context": "anna won " * 100}], model)
    assert len(features) > 4 and max(feature.length for feature in features) == 60


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        ({"model_type": "bert", "type_vocab_size": 2}, None, ALL),
        ({"model_type": "bert", "type_vocab_size": 2}, ["input_ids"], ALL),
        ({"model_type": "gpt2"}, ["input_ids", "attention_mask"], ["input_ids", "attention_mask"]),
        ({"model_type": "gpt2"}, None, ALL),
    ],
)
def test_token_types_are_inputs_where_the_tokenizer_gives_them_or_the_model_counts_them(
    tmp_path: Path, config: dict[str, Any], given: list[str] | None, expected: list[str]
) -> None:
    model = folder(tmp_path, config, **({"model_input_names": given} if given else {}))
    assert list(token_kinds(model)) == expected


@pytest.mark.parametrize("kind", ["convbert", "fnet", "mobilebert", "nystromformer", "xlnet"])
def test_what_padding_disturbs_is_never_padded(tmp_path: Path, kind: str) -> None:
    kinds = token_kinds(folder(tmp_path, {"model_type": kind, "pad_token_id": 5}))
    assert {each.fill for each in kinds.values()} == {None}
    plain = token_kinds(folder(tmp_path, {"model_type": "bert", "pad_token_id": 5}))
    assert [each.fill for each in plain.values()] == [5, 0, 0]


@pytest.mark.parametrize(("key", "value"), [("truncation_side", "up"), ("model_input_names", 3), ("padding_side", 1)])
def test_a_wrong_setting_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"tokenizer_config.json: {key}"):
        settings(folder(tmp_path, {}, **{key: value}))


def test_settings_of_no_file_are_those_of_transformers(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.truncation_side, found.padding_side, found.model_max_length) == ("right", "right", None)


def test_special_tokens_in_a_text_are_text_where_the_settings_say(tmp_path: Path) -> None:
    model = models.make("bert", tmp_path / "bert")
    config = model / "tokenizer_config.json"
    plain = _tokens.tokenizer(model, 32).encode("anna[SEP]").ids
    config.write_text(json.dumps({**json.loads(config.read_text()), "split_special_tokens": True}))
    split = _tokens.tokenizer(model, 32).encode("anna[SEP]").ids
    assert plain != split == AutoTokenizer.from_pretrained(model)("anna[SEP]").input_ids


@pytest.mark.parametrize("task", HEADS)
def test_a_row_without_tokens_is_refused_by_its_id(tmp_path: Path, task: Any) -> None:
    model = models.make("roberta", tmp_path / "roberta", HEADS[task])
    file = model / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    full = {"text": "anna", "tokens": ["anna"], "question": "anna", "context": "anna"}
    rows = [{"id": "one", **full}, {"id": "bare", "text": "", "tokens": [], "question": "", "context": ""}]
    with pytest.raises(RecipeError, match="row bare: its text is empty, and the tokenizer adds no special tokens"):
        task().encode(rows, model)
    assert task().encode(rows[:1], model)


def test_a_tokenizer_that_pads_on_the_left_reads_the_passage_first(tmp_path: Path) -> None:
    model = models.make("bert", tmp_path / "bert")
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "padding_side": "left"}))
    [feature] = QuestionAnswering().encode([{"id": "1", "question": "who won", "context": "anna won"}], model)
    expected = AutoTokenizer.from_pretrained(model)("anna won", "who won")
    assert feature.inputs["input_ids"] == expected.input_ids
    assert feature.inputs["token_type_ids"] == expected.token_type_ids
    assert feature.extra.tolist() == [[-1, -1], [0, 4], [5, 8], [-1, -1], [-1, -1], [-1, -1], [-1, -1]]
