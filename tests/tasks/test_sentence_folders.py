"""What is read of a sentence-transformers folder; right values are torch's own modules and numbers by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _sentences, _weights
from cpu_pipeline.tasks._activations import ACTIVATIONS
from cpu_pipeline.tasks._pooling import FLAGS, POOLS
from cpu_pipeline.tasks._transformer import FILES

VECTORS = np.float32([[1, 8], [3, 2], [5, 2]])
MODES = {
    "mean": [3, 4],
    "cls": [1, 8],
    "max": [5, 8],
    "mean_sqrt_len_tokens": [9 / 3**0.5, 12 / 3**0.5],
    "weightedmean": [22 / 6, 18 / 6],
    "lasttoken": [5, 2],
}
OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules.pooling."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "config.json", {"model_type": "bert", "max_position_embeddings": 512})
    modules(tmp_path, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write(tmp_path / "1_Pooling" / "config.json", {"word_embedding_dimension": 2, "pooling_mode_mean_tokens": True})
    return tmp_path


def write(path: Path, said: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(said))


def modules(model: Path, *kinds: tuple[str, str], package: str = OLD) -> None:
    said = [{"idx": i, "name": str(i), "path": path, "type": package + kind} for i, (kind, path) in enumerate(kinds)]
    write(model / "modules.json", said)


def followed_by(model: Path, kind: str, config: Mapping[str, Any] | None, **weights: torch.Tensor) -> Path:
    """Add a module after pooling."""
    modules(model, ("Transformer", ""), ("Pooling", "1_Pooling"), (kind, f"2_{kind}"))
    folder = model / f"2_{kind}"
    folder.mkdir(exist_ok=True)
    if config is not None:
        write(folder / "config.json", config)
    if weights:
        save_file({name.replace("__", "."): tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def pooled(model: Path, vectors: Any = VECTORS, prompt: int = 0) -> list[float]:
    found: list[float] = _sentences.read(model).embed(vectors, prompt).tolist()
    return found


def refused(model: Path, *says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _sentences.read(model)
    assert all(part in str(caught.value) for part in says), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_of_older_and_newer_files(model: Path, mode: str) -> None:
    flag = next(flag for flag, name in FLAGS.items() if name == mode)
    file = model / "1_Pooling" / "config.json"
    write(file, {"word_embedding_dimension": 2, "pooling_mode_mean_tokens": False, f"pooling_mode_{flag}": True})
    assert pooled(model) == pytest.approx(MODES[mode])
    write(file, {"embedding_dimension": 2, "pooling_mode": mode, "include_prompt": True})
    modules(model, ("Transformer", ""), ("Pooling", "1_Pooling"), package=NEW)
    assert pooled(model) == pytest.approx(MODES[mode])
    followed_by(model, "Normalize", None)
    assert pooled(model) == pytest.approx((np.array(MODES[mode]) / np.linalg.norm(MODES[mode])).tolist())


@given(st.lists(st.sampled_from(sorted(MODES)), min_size=1, max_size=7))
def test_modes_are_joined_in_the_file_s_order(tmp_path_factory: pytest.TempPathFactory, modes: list[str]) -> None:
    model = tmp_path_factory.mktemp("model")
    write(model / "config.json", {})
    modules(model, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write(model / "1_Pooling" / "config.json", {"pooling_mode": modes})
    assert pooled(model) == pytest.approx([number for mode in modes for number in MODES[mode]])


@given(st.permutations(sorted(FLAGS)), st.integers(0, 6))
def test_flags_are_joined_in_their_own_order(
    tmp_path_factory: pytest.TempPathFactory, flags: list[str], count: int
) -> None:
    model = tmp_path_factory.mktemp("model")
    write(model / "config.json", {})
    modules(model, ("Transformer", ""), ("Pooling", "1_Pooling"))
    said = {f"pooling_mode_{flag}": number < count for number, flag in enumerate(flags)}
    write(model / "1_Pooling" / "config.json", said)
    order = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    asked = {FLAGS[flag] for flag in flags[:count]} or {"mean"}
    assert pooled(model) == pytest.approx([number for mode in order if mode in asked for number in MODES[mode]])


@pytest.mark.parametrize(
    ("mode", "without_one", "without_all"),
    [
        ("mean", [4, 2], [0, 0]),
        ("cls", [3, 2], [1, 8]),
        ("max", [5, 2], [-np.inf, -np.inf]),
        ("mean_sqrt_len_tokens", [8 / 2**0.5, 4 / 2**0.5], [0, 0]),
        ("weightedmean", [21 / 5, 2], [0, 0]),
        ("lasttoken", [5, 2], [0, 0]),
    ],
)
def test_the_prompt_s_tokens_can_be_left_out(
    model: Path, mode: str, without_one: list[float], without_all: list[float]
) -> None:
    write(model / "1_Pooling" / "config.json", {"pooling_mode": mode, "include_prompt": False})
    assert pooled(model, prompt=0) == pytest.approx(MODES[mode])
    assert pooled(model, prompt=1) == pytest.approx(without_one)
    assert pooled(model, prompt=9) == pytest.approx(without_all)
    write(model / "1_Pooling" / "config.json", {"pooling_mode": mode})
    assert pooled(model, prompt=1) == pytest.approx(MODES[mode])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_torch_s(name: str) -> None:
    values = torch.linspace(-30, 30, 4001, dtype=torch.float64)
    right = getattr(torch.nn, name)()(values).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](values.numpy()), right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("size", [2, 3])
def test_dense_layers_equal_torch_s(model: Path, size: int, *, residual: bool, bias: bool) -> None:
    linear, through = torch.nn.Linear(2, size, bias=bias), torch.nn.Linear(2, size, bias=False)
    weights = {"linear__weight": linear.weight, **({"linear__bias": linear.bias} if bias else {})}
    if residual and size != 2:
        weights["residual__weight"] = through.weight
    said = {"in_features": 2, "out_features": size, "bias": bias, "use_residual": residual}
    followed_by(model, "Dense", {**said, "activation_function": "torch.nn.modules.activation.Tanh"}, **weights)
    given = torch.tensor([3.0, 4.0])
    right = torch.tanh(linear(given))
    if residual:
        right = right + (given if size == 2 else through(given))
    assert pooled(model) == pytest.approx(right.tolist(), abs=1e-6)


def test_a_dense_layer_without_a_word_of_its_activation_has_tanh(model: Path) -> None:
    followed_by(model, "Dense", {"in_features": 2, "out_features": 1}, linear__weight=torch.tensor([[0.1, 0.2]]),
                linear__bias=torch.tensor([0.5]))  # fmt: skip
    assert pooled(model) == pytest.approx([np.tanh(1.6)])


def test_layer_norm_equals_torch_s(model: Path) -> None:
    layer = torch.nn.LayerNorm(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.1, 0.2]))
    followed_by(model, "LayerNorm", {"dimension": 2}, norm__weight=layer.weight, norm__bias=layer.bias)
    assert pooled(model) == pytest.approx(layer(torch.tensor([3.0, 4.0])).tolist(), abs=1e-6)


def test_dropout_does_nothing(model: Path) -> None:
    followed_by(model, "Dropout", {"dropout": 0.9})
    assert pooled(model) == pytest.approx([3, 4])


def test_modules_run_in_the_order_of_the_list_whatever_their_numbers_say(model: Path) -> None:
    followed_by(model, "Normalize", None)
    said = json.loads((model / "modules.json").read_text())
    write(model / "modules.json", [{**entry, "idx": 9 - entry["idx"]} for entry in said])
    assert pooled(model) == pytest.approx([0.6, 0.8])
    write(model / "modules.json", [said[0], said[2], said[1]])  # before pooling there is nothing to normalise
    assert pooled(model) == pytest.approx([3, 4])


def test_modules_of_token_vectors_run_before_pooling(model: Path) -> None:
    modules(model, ("Transformer", ""), ("Normalize", "2_Normalize"), ("Pooling", "1_Pooling"))
    write(model / "2_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    assert pooled(model, np.float32([[3, 4], [0, 2]])) == pytest.approx([0.3, 0.9])


REFUSED = ("WordEmbeddings", "CNN", "LSTM", "BoW", "StaticEmbedding", "CLIPModel", "Router", "Asym", "WordWeights",
           "WeightedLayerPooling", "SpladePooling")  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_modules_are_refused_by_name(model: Path, kind: str) -> None:
    modules(model, (kind, ""), ("Pooling", "1_Pooling"))
    refused(model, f"module 0 is a {kind}")
    modules(model, ("Transformer", ""), (kind, "1_X"), ("Pooling", "1_Pooling"))
    refused(model, f"modules.json: module 1 is a {kind}, which is not supported: ")


FIRST = {"name": "0", "type": OLD + "Transformer", "path": ""}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ([], "not a list of modules"),
        ({}, "modules.json is not a JSON list"),
        ([{"type": "modeling_own.Transformer"}], "modeling_own.Transformer is code that comes with the model"),
        ([{"type": OLD + "Transformer", "path": "0_Transformer"}], "the transformer is in the folder 0_Transformer"),
        ([{"type": OLD + "Transformer", "path": ""}], "no Pooling module"),
        ([{"name": "0", "type": OLD + "Transformer", "path": ""}, {"name": "0"}], "two modules have one name"),
        ([FIRST, {"type": OLD + "Transformer"}], "module 1 is a Transformer"),
        ([FIRST, {"type": OLD + "Pooling", "path": "../x"}], "leads outside"),
        ([FIRST, {"type": OLD + "Pooling", "path": "/x"}], "leads outside"),
        ([FIRST, {"type": OLD + "Pooling", "path": "x"}], "config.json is not there: modules.json names x/config.json"),
    ],
)  # fmt: skip
def test_a_list_of_modules_that_cannot_be_run_is_told(model: Path, said: Any, says: str) -> None:
    write(model / "modules.json", said)
    refused(model, says)


def test_modules_in_an_order_that_does_not_work_are_refused(model: Path) -> None:
    followed_by(model, "LayerNorm", {"dimension": 2}, norm__weight=torch.ones(2), norm__bias=torch.ones(2))
    modules(model, ("Transformer", ""), ("LayerNorm", "2_LayerNorm"), ("Pooling", "1_Pooling"))
    refused(model, "LayerNorm comes before Pooling")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"pooling_mode": "magic"}, "1_Pooling/config.json: 'magic' is not known"),
        ({"pooling_mode": ["mean", 5]}, "5 is not known"),
        ({"pooling_mode": []}, "'no pooling mode' is not known"),
        ({"pooling_mode_magic_tokens": True}, "'pooling_mode_magic_tokens' is not known"),
        ({"pooling_mode": "mean", "temperature": 2}, "'temperature' is not known"),
    ],
)
def test_a_pooling_that_is_not_known_is_refused(model: Path, config: Any, says: str) -> None:
    write(model / "1_Pooling" / "config.json", config)
    refused(model, says, "mean_sqrt_len_tokens")


DENSE = {"in_features": 2, "out_features": 3, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation_function": "torch.nn.PReLU"}, "2_Dense/config.json: the activation function torch.nn.PReLU"),
        ({"activation_function": "my.Tanh"}, "the activation function my.Tanh is not known here; known are, of "),
        ({"activation_function": "torch.nn.functional.gelu"}, "torch.nn.functional.gelu"),
        ({"bias": True}, "2_Dense/model.safetensors: it holds linear.weight, not linear.weight, linear.bias"),
        ({"in_features": 4}, "not the shape of linear.weight"),
        ({"module_input_name": "all_layer_embeddings"}, "reads all_layer_embeddings and writes all_layer_embeddings"),
        ({"module_input_name": "token_embeddings", "module_output_name": "sentence_embedding"}, "it must replace"),
    ],
)  # fmt: skip
def test_a_dense_layer_that_is_not_known_is_refused(model: Path, change: Any, says: str) -> None:
    followed_by(model, "Dense", {**DENSE, **change}, linear__weight=torch.ones(3, 2))
    refused(model, says)


def test_weights_that_are_missing_pickled_or_of_another_size_are_told(model: Path) -> None:
    folder = followed_by(model, "Dense", DENSE)
    refused(model, "2_Dense/model.safetensors is not there: save")
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(model, "2_Dense/model.safetensors is not there (", "`allow: [pickle]`")
    followed_by(model, "Dense", {**DENSE, "in_features": 5}, linear__weight=torch.ones(3, 5))
    with pytest.raises(RecipeError, match="2_Dense: it takes vectors of 5 numbers, and gets 2"):
        pooled(model)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 5) + b"{")
    refused(model, "2_Dense/model.safetensors: not a valid safetensors file")


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_every_floating_type_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    tensors = {"a": torch.randn(3, 5).to(kind), "b": torch.randn(2).to(kind), "none": torch.zeros(0, 4).to(kind)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = _weights.read(tmp_path / "model.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {n: t.tolist() for n, t in tensors.items()}
    save_file({"a": torch.ones(2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(RecipeError, match="tensor 'a' is of type I64"):
        _weights.read(tmp_path / "model.safetensors")


def test_the_main_settings(model: Path) -> None:
    found = _sentences.read(model)
    assert (found.prompts, found.default_prompt) == ({"query": "", "document": ""}, "")
    assert (found.similarity, found.truncate_dim) == ("cosine", None)
    main = model / "config_sentence_transformers.json"
    said = {"prompts": {"query": None, "passage": "p: "}, "default_prompt_name": "passage", "truncate_dim": 1}
    write(main, {**said, "similarity_fn_name": "dot", "model_type": "SentenceTransformer", "__version__": {}})
    found = _sentences.read(model)
    assert found.prompts == {"query": "", "document": "", "passage": "p: "}
    assert (found.default_prompt, found.similarity, pooled(model)) == ("p: ", "dot", [3])
    (model / "modules.json").unlink()  # without modules sentence-transformers does not read the file
    assert _sentences.read(model) == _sentences.Sentences(found.transformer)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"default_prompt_name": "passage"}, "default_prompt_name is 'passage', and the prompts are query, document"),
        ({"prompts": {"query": 5}}, "prompts must map names to texts"),
        ({"prompts": ["query"]}, "prompts must map names to texts"),
        ({"truncate_dim": -1}, "truncate_dim is -1"),
        ({"model_type": "SparseEncoder"}, "the model is a SparseEncoder"),
        ({"model_type": "CrossEncoder"}, "the model is a CrossEncoder"),
    ],
)
def test_main_settings_that_are_not_supported_are_refused(model: Path, said: Any, says: str) -> None:
    write(model / "config_sentence_transformers.json", said)
    refused(model, "config_sentence_transformers.json: ", says)


def length(model: Path) -> int | None:
    return _sentences.read(model).transformer.max_length


def test_the_length_is_the_first_file_s_that_says_something(model: Path) -> None:
    assert length(model) == 512
    for number, name in enumerate(reversed(FILES)):
        write(model / name, {"max_seq_length": 100 + number})
        assert length(model) == 100 + number
    write(model / FILES[0], {})
    assert length(model) == 105
    write(model / "tokenizer_config.json", {"model_max_length": 16})
    assert length(model) == 105
    (model / "modules.json").unlink()
    assert length(model) == 16


@pytest.mark.parametrize(
    ("tokenizer", "config", "expected"),
    [
        ({"model_max_length": 16}, {"model_type": "bert", "max_position_embeddings": 512}, 16),
        ({"max_len": 16}, {"model_type": "bert", "max_position_embeddings": 512}, 16),
        ({"model_max_length": 10**30}, {"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({}, {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_max_length": 512}, {"model_type": "t5"}, 512),
        ({"model_max_length": 1e30}, {"model_type": "t5"}, None),
        ({"model_max_length": 2048}, {"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({}, {"model_type": "xlnet", "max_position_embeddings": -1}, None),
        (None, {"model_type": "qwen3", "max_position_embeddings": 40960}, 40960),
    ],
)
def test_without_one_the_tokenizer_s_and_the_model_s_limit_count(
    model: Path, tokenizer: Any, config: Any, expected: int | None
) -> None:
    write(model / "config.json", config)
    if tokenizer is not None:
        write(model / "tokenizer_config.json", tokenizer)
    assert length(model) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"max_seq_length": 20}, 20),
        ({"max_seq_length": 600}, 512),  # BERT has no more positions
        ({"max_seq_length": 20, "tokenizer_args": {"model_max_length": 30}}, 30),
        ({"max_seq_length": 20, "processor_kwargs": {"model_max_length": 30, "trust_remote_code": False}}, 30),
        ({"max_seq_length": 20, "processing_kwargs": {"text": {"max_length": 40}}}, 40),
        ({"processing_kwargs": {"text": {"max_length": 40}, "common": {"max_length": 50, "padding": True}}}, 50),
        ({"model_args": {"torch_dtype": "float16"}, "unpad_inputs": True, "query_length": None}, 512),
    ],
)
def test_where_a_length_can_stand(model: Path, said: Any, expected: int) -> None:
    write(model / FILES[0], said)
    assert length(model) == expected


TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"max_seq_length": "128"}, "the length of a text is '128'"),
        ({"max_seq_length": 0}, "the length of a text is 0"),
        ({"config_args": {"is_causal": False}}, "config_kwargs.is_causal is not supported"),
        ({"model_args": {"add_pooling_layer": False}}, "model_kwargs.add_pooling_layer"),
        ({"tokenizer_args": {"truncation_side": "left"}}, "processor_kwargs.truncation_side"),
        ({"tokenizer_name_or_path": "other/model"}, "tokenizer_name_or_path"),
        ({"transformer_task": "fill-mask"}, "transformer_task fill-mask"),
        ({"query_expansion": {"strategy": "fixed", "length": 32}}, "query_expansion"),
        ({"query_length": 32}, "query_length"),
        ({"processing_kwargs": {"text": {"truncation": False}}}, "processing_kwargs.text.truncation False"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs.text.add_special_tokens"),
        ({"processing_kwargs": []}, None),
        ({"processing_kwargs": [1]}, "processing_kwargs must be a JSON object"),
        (
            {"module_output_name": "sentence_embedding", "modality_config": TEXT},
            "module_output_name sentence_embedding",
        ),
        (
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "modality_config",
        ),
        ({"modality_config": {"image": TEXT["text"]}}, "a modality_config in which `text` is not"),
        ({"modality_config": {**TEXT, "message": TEXT["text"]}}, "a modality_config with `message`"),
        ({"modality_config": TEXT, "module_output_name": "token_embeddings"}, None),
    ],
)
def test_settings_of_the_transformer_that_change_answers_are_refused(model: Path, said: Any, says: str | None) -> None:
    write(model / FILES[3], said)
    if says is None:
        _sentences.read(model)
    else:
        refused(model, f"{FILES[3]}: ", says)


def test_a_folder_without_modules_has_the_mean_or_the_last_token(model: Path) -> None:
    (model / "modules.json").unlink()
    assert pooled(model) == pytest.approx([3, 4])
    causal = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    write(model / "config.json", causal)
    assert pooled(model) == pytest.approx([3, 4])  # as sentence-transformers, which looks for `ForCausalLM`
    write(model / "config.json", {"architectures": ["Qwen3ForCausalLM"]})
    assert pooled(model) == pytest.approx([5, 2])
    write(model / "config.json", {"architectures": ["Qwen3ForCausalLM"], "is_causal": False})
    assert pooled(model) == pytest.approx([3, 4])
    write(model / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    refused(model, "no modules.json", "chat template")
    write(model / "tokenizer_config.json", {})
    (model / "chat_template.jinja").write_text("")
    refused(model, "no modules.json", "chat template")


def test_models_whose_encoder_alone_is_run_are_refused(model: Path) -> None:
    write(model / "config.json", {"model_type": "marian"})
    refused(model, "config.json: the model is a marian")


def test_every_mode_has_its_pool() -> None:
    assert set(POOLS) == set(MODES) == set(FLAGS.values())


def test_a_folder_that_is_not_whole_yet_is_read_as_far_as_it_goes(model: Path) -> None:
    followed_by(model, "Dense", None)
    assert len(_sentences.read(model, whole=False).modules) == 1
    (model / "1_Pooling" / "config.json").unlink()
    assert _sentences.read(model, whole=False).modules == ()
    modules(model, ("Transformer", ""), ("Pooling", "1_Pooling"), ("CNN", "2_CNN"))
    with pytest.raises(RecipeError, match="module 2 is a CNN"):
        _sentences.read(model, whole=False)
