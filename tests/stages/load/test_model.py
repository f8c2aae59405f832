"""Screening and completing a fetched model."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import media
import onnx
import pytest
import torch
from models import make
from safetensors.torch import load_file, save_file

from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import PipelineError, RecipeError, Refused, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.model import LoadModel


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bert"))


def load(files: Path, out: Path, tokenizer: Path | None = None, allow: Set[str] = frozenset(), **options: Any) -> Any:
    out.mkdir()
    inputs = {"files": Artifact("files", files, "", {})}
    if tokenizer:
        inputs["tokenizer"] = Artifact("files", tokenizer, "", {})
    return LoadModel(**options).run(inputs, out, Job(load=None, timer=None, allow=allow))  # type: ignore[arg-type]


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def fails(error: type[PipelineError], says: str, files: Path, out: Path, **more: Any) -> None:
    with pytest.raises(error) as caught:
        load(files, out, **more)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_sound_model_passes_with_its_facts(bert: Path, tmp_path: Path) -> None:
    facts = load(bert, tmp_path / "out")
    assert facts.architecture == "BertForQuestionAnswering" and facts.model_type == "bert"
    tensors = load_file(bert / "model.safetensors")
    assert facts.parameters == sum(t.numel() for t in tensors.values())
    assert facts.weight_bytes == 4 * facts.parameters
    assert facts.dtypes == {"F32": len(tensors)}
    assert facts.tokens == facts.vocab_size == json.loads((bert / "config.json").read_text())["vocab_size"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").stat().st_nlink == 1
    assert LoadModel().gives() == "hf" and LoadModel(format="onnx").gives() == "onnx"


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "minilm"])
def test_other_families_fit_too(kind: str, tmp_path: Path) -> None:
    assert load(make(kind, tmp_path / "model"), tmp_path / "out").tokens > 100


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}),
        ("config.json", {"_attn_implementation_internal": None}),
        ("config.json", {"_experts_implementation_internal": "evil/kernel"}),
        ("config.json", {"_attn_implementation": "evil/kernel"}),
        ("config.json", {"attn_implementation": {"": "eager", "text_config": "evil/kernel:run"}}),
        ("config.json", {"text_config": {"deep": [{"auto_map": {"AutoConfig": "x.Y"}}]}}),
        ("config.json", {"vision_config": {"_attn_implementation_internal": "evil/kernel"}}),
        ("config.json", {"trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}),
    ],
)
def test_keys_that_load_code_are_refused_or_removed(bert: Path, tmp_path: Path, file: str, value: Any) -> None:
    edit(bert / file, **value)
    fails(Refused, "allow: [auto_map]", bert, tmp_path / "no", allow={"pickle"})
    load(bert, tmp_path / "yes", allow={"auto_map"})
    said = (tmp_path / "yes" / file).read_text()
    assert not any(word in said for word in ("evil", "auto_map", "internal", "trust_remote_code"))


@pytest.mark.parametrize(
    "value",
    [
        {"max_window_layers": 10**9},
        {"_attn_implementation": "sdpa", "_attn_implementation_autoset": True},
        {"attn_implementation": None},
        {"auto_map": None},
        {"trust_remote_code": False},
    ],
)
def test_harmless_settings_pass(bert: Path, tmp_path: Path, value: Any) -> None:
    edit(bert / "config.json", **value)
    load(bert, tmp_path / "out")


def test_a_word_of_the_vocabulary_is_no_code(bert: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((bert / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["auto_map"] = vocabulary.pop("good")
    (bert / "tokenizer.json").write_text(json.dumps(tokenizer))
    load(bert, tmp_path / "out")


def test_where_a_copy_came_from_does_not_matter(bert: Path, tmp_path: Path) -> None:
    edit(bert / "config.json", _name_or_path="/home/one")
    edit(bert / "tokenizer_config.json", name_or_path="/home/one")
    load(bert, tmp_path / "one")
    edit(bert / "config.json", _name_or_path="/home/two")
    edit(bert / "tokenizer_config.json", name_or_path="two")
    load(bert, tmp_path / "two")
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    assert "/home" not in (tmp_path / "one" / "config.json").read_text()


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"{", StageFailed, "config.json: not a valid JSON file"),
        (b"[]", StageFailed, "must be a JSON object"),
        (b"\xff\xfe", StageFailed, "not a valid JSON file"),
        (b"[" * 100_000, StageFailed, "not a valid JSON file"),
    ],
)
def test_a_broken_config_is_named(
    bert: Path, tmp_path: Path, content: bytes, error: type[PipelineError], says: str
) -> None:
    (bert / "config.json").write_bytes(content)
    fails(error, says, bert, tmp_path / "out")


def test_json_is_capped(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpu_pipeline.stages.load._configs.LARGEST", 100)
    fails(StageFailed, "at most 100", bert, tmp_path / "out")


@pytest.mark.parametrize(
    ("gone", "error", "says"),
    [
        ("config.json", RecipeError, "no config.json"),
        ("model.safetensors", RecipeError, "no weights"),
        ("tokenizer.json", RecipeError, "no tokenizer"),
    ],
)
def test_missing_files_are_named(bert: Path, tmp_path: Path, gone: str, error: type[PipelineError], says: str) -> None:
    (bert / gone).unlink()
    fails(error, says, bert, tmp_path / "out")


def test_broken_weights_are_named(bert: Path, tmp_path: Path) -> None:
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    fails(StageFailed, "model.safetensors: not a valid safetensors file", bert, tmp_path / "cut")
    save_file({}, path)
    fails(StageFailed, "holds no tensor", bert, tmp_path / "empty")


def shard(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        place = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / place)
        places |= dict.fromkeys(part, place)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tensors


def test_shards_pass_whole_and_fail_in_part(bert: Path, tmp_path: Path) -> None:
    tensors = shard(bert)
    facts = load(bert, tmp_path / "whole")
    assert facts.parameters == sum(t.numel() for t in tensors.values())
    index = bert / "model.safetensors.index.json"
    good = index.read_text()
    edit(index, weight_map={**json.loads(good)["weight_map"], "more": "model-00001-of-00002.safetensors"})
    fails(StageFailed, "it lacks 'more'", bert, tmp_path / "lacks")
    edit(index, weight_map={"w": "../model.safetensors"})
    fails(RecipeError, "is missing", bert, tmp_path / "outside")
    index.write_text('{"weight_map": [1]}')
    fails(StageFailed, "not a valid index", bert, tmp_path / "index")
    index.write_text(good)
    (bert / "model-00002-of-00002.safetensors").unlink()
    fails(RecipeError, "the shard 'model-00002-of-00002.safetensors' is missing", bert, tmp_path / "part")


@pytest.mark.parametrize("shards", [1, 2])
def test_pickles_are_converted_where_allowed(bert: Path, tmp_path: Path, shards: int) -> None:
    tensors = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    first = next(iter(tensors))
    state = {**tensors, "tied": tensors[first], "turned": torch.arange(6.0).reshape(2, 3).t()}
    if shards == 1:
        torch.save(state, bert / "pytorch_model.bin")
    else:
        names = sorted(state)
        places = {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            place = f"pytorch_model-{number:05}-of-00002.bin"
            torch.save({name: state[name] for name in part}, bert / place)
            places |= dict.fromkeys(part, place)
        (bert / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    fails(Refused, "allow: [pickle]", bert, tmp_path / "no", allow={"auto_map"})
    load(bert, tmp_path / "out", allow={"pickle", "unused_weights"})
    came = load_file(tmp_path / "out" / "model.safetensors")
    assert came.keys() == state.keys()
    assert all(torch.equal(came[name], state[name]) for name in state)
    assert not list((tmp_path / "out").glob("pytorch_model*"))


@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_the_pickle_of_a_module_is_converted_where_allowed(bert: Path, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        (bert / "model.safetensors").unlink()
        (bert / "model.onnx").write_bytes(onnx.helper.make_model(onnx.GraphProto(name="g")).SerializeToString())
    dense = {"linear.weight": torch.randn(3, 5), "linear.bias": torch.randn(3)}
    (bert / "2_Dense").mkdir()
    torch.save(dense, bert / "2_Dense" / "pytorch_model.bin")
    fails(Refused, "the only weights of 2_Dense are pickled", bert, tmp_path / "no", format=format)
    load(bert, tmp_path / "out", allow={"pickle"}, format=format)
    came = load_file(tmp_path / "out" / "2_Dense" / "model.safetensors")
    assert all(torch.equal(came[name], dense[name]) for name in dense) and came.keys() == dense.keys()
    assert [path.name for path in (tmp_path / "out" / "2_Dense").iterdir()] == ["model.safetensors"]


def test_an_adapter_is_not_left_out_in_silence(bert: Path, tmp_path: Path) -> None:
    (bert / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    fails(RecipeError, "adapter_config.json: the model comes with an adapter", bert, tmp_path / "out")


@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_the_weights_of_a_module_are_screened(bert: Path, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        (bert / "model.safetensors").unlink()
    (bert / "2_Dense").mkdir()
    (bert / "2_Dense" / "model.safetensors").write_bytes(b"PK")
    fails(StageFailed, "not a valid safetensors file", bert, tmp_path / "out", format=format)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("content", [b"", b"random", {"w": Evil()}, [1], {"w": 1}])
def test_pickles_that_are_no_weights_fail_and_run_nothing(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (bert / "model.safetensors").unlink()
    if isinstance(content, bytes):
        (bert / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, bert / "pytorch_model.bin")
    runs = isinstance(content, dict) and isinstance(content["w"], Evil)
    error, says = (Refused, "its pickle calls ") if runs else (StageFailed, "not a valid file of pickled weights")
    fails(error, says, bert, tmp_path / "out", allow={"pickle"})
    assert not (tmp_path / "executed").exists()


def test_a_tokenizer_is_made_from_its_vocabulary(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    vocabulary = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
    (bert / "tokenizer.json").unlink()
    (bert / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])) + "\n")
    load(bert, tmp_path / "one")
    load(bert, tmp_path / "two")
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert tokenizer("anna visited paris")["input_ids"] == [
        2,
        *(vocabulary[w] for w in ("anna", "visited", "paris")),
        3,
    ]
    assert str(tmp_path) not in (tmp_path / "one" / "tokenizer_config.json").read_text()


def test_a_given_tokenizer_replaces_the_models(bert: Path, tmp_path: Path) -> None:
    other = make("bert", tmp_path / "other")
    edit(other / "tokenizer_config.json", model_max_length=77)
    (bert / "vocab.txt").write_text("of the model")
    load(bert, tmp_path / "out", other)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 77
    assert not (tmp_path / "out" / "vocab.txt").exists()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_tokenizer_of_another_model_does_not_fit(bert: Path, tmp_path: Path) -> None:
    other = make("roberta", tmp_path / "other")
    sizes = [json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (bert, other)]
    assert sizes[1] > sizes[0]
    fails(RecipeError, f"the model has {sizes[0]} embeddings", bert, tmp_path / "out", tokenizer=other)
    with pytest.raises(RecipeError, match=f"is number {sizes[1] - 1}"):
        load(bert, tmp_path / "again", other)


@pytest.mark.parametrize(
    ("where", "says"),
    [("added", "'<new>' is number 5000"), ("post", "post-processor' is number 5000"), ("pad", "pad_token_id is 5000")],
)
def test_every_id_that_can_occur_is_checked(bert: Path, tmp_path: Path, where: str, says: str) -> None:
    path = bert / "tokenizer.json"
    said = json.loads(path.read_text())
    if where == "added":
        said["added_tokens"].append({**said["added_tokens"][0], "id": 5000, "content": "<new>"})
    elif where == "post":
        said["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [],
            "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [5000], "tokens": ["[CLS]"]}},
        }
    else:
        edit(bert / "config.json", pad_token_id=5000)
    path.write_text(json.dumps(said))
    with pytest.raises(RecipeError, match=says.replace("'", ".")):
        load(bert, tmp_path / "out")


@pytest.mark.parametrize(
    "said", [{}, {"model": {"vocab": 3}}, {"model": {"vocab": {"a": "b"}}}, {"model": {"vocab": {}}}]
)
def test_a_broken_tokenizer_is_named(bert: Path, tmp_path: Path, said: Any) -> None:
    (bert / "tokenizer.json").write_text(json.dumps(said))
    fails(StageFailed, "tokenizer.json: not a valid tokenizer", bert, tmp_path / "out")


def test_unigram_vocabularies_count_by_place(bert: Path, tmp_path: Path) -> None:
    path = bert / "tokenizer.json"
    said = json.loads(path.read_text())
    size = json.loads((bert / "config.json").read_text())["vocab_size"]
    said["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[f"t{i}", -1.0] for i in range(size + 1)]}
    path.write_text(json.dumps(said))
    fails(RecipeError, f"'t{size}' is number {size}", bert, tmp_path / "out")


def test_settings_that_transformers_5_alone_reads_are_spelled_for_both(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = bert / "tokenizer_config.json"
    edit(config, tokenizer_class="TokenizersBackend", backend="tokenizers", extra_special_tokens=["anna"])
    before = AutoTokenizer.from_pretrained(bert)
    load(bert, tmp_path / "out")
    said = json.loads((tmp_path / "out" / config.name).read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert said["additional_special_tokens"] == ["anna"] and "extra_special_tokens" not in said
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after.all_special_tokens == before.all_special_tokens and "anna" in after.all_special_tokens
    assert after("anna found rome").input_ids == before("anna found rome").input_ids
    settings = {"extra_special_tokens": {"one": "anna"}, "tokenizer_class": "BertTokenizer"}
    edit(config, **settings)
    load(bert, tmp_path / "same")
    assert (tmp_path / "same" / config.name).read_bytes() == config.read_bytes()


@pytest.mark.parametrize("make_media", [media.vit, media.wav2vec2], ids=["images", "sound"])
def test_a_model_of_images_or_sound_needs_no_tokenizer(tmp_path: Path, make_media: Any) -> None:
    model = make_media(tmp_path / "model")
    facts = load(model, tmp_path / "out")
    assert facts.tokens is None and facts.parameters > 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    (model / "preprocessor_config.json").unlink()
    fails(RecipeError, "the model has no tokenizer", model, tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and the weights hold"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"vocab_size": 10**15}, "vocab_size is 1000000000000000"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": 1}, "allow: [unused_weights]"),
        ({"num_hidden_layers": 3}, "they lack 'bert.encoder.layer.2."),
        ({"hidden_size": 64}, "by config.json"),
        ({"intermediate_size": 65}, "by config.json"),
        ({"num_attention_heads": 0}, "transformers makes no BertForQuestionAnswering of it"),
        ({"num_attention_heads": 5}, "transformers makes no BertForQuestionAnswering of it"),
        ({"hidden_size": "wide"}, "transformers makes no BertForQuestionAnswering of it"),
        ({"max_position_embeddings": 1024}, "position_embeddings.weight is 512x32 in the weights"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(
    bert: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    edit(bert / "config.json", **change)
    fails(RecipeError, says, bert, tmp_path / "out")


def test_unused_weights_pass_where_allowed_and_heads_always(bert: Path, tmp_path: Path) -> None:
    tensors = load_file(bert / "model.safetensors")
    more = {"cls.predictions.bias": torch.zeros(3), "bert.pooler.dense.bias": torch.zeros(32)}
    more |= {"bert.embeddings.position_ids": torch.arange(512)[None]}
    save_file({**tensors, **more}, bert / "model.safetensors")
    load(bert, tmp_path / "heads")
    edit(bert / "config.json", num_hidden_layers=1)
    fails(RecipeError, "'bert.encoder.layer.1.", bert, tmp_path / "no")
    load(bert, tmp_path / "out", allow={"unused_weights"})


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "sentence-similarity"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_models_of_every_task_fit_their_own_config(kind: str, task: str, tmp_path: Path) -> None:
    load(make(kind, tmp_path / "model", task=task), tmp_path / "out")


BOMB = base64.b64encode(bytes(4) + b"a" * 1000).decode()
"""A table of sentencepiece's with an empty trie and one long replacement."""


def replace(content: str, pattern: Any = "a") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.parametrize(
    "steps",
    [
        {"normalizer": replace("a" * 1000)},
        {"normalizer": {"type": "Sequence", "normalizers": [replace("a" * 20)] * 2}},
        {"normalizer": {"type": "Sequence", "normalizers": [replace("aa")] * 40}},
        {"normalizer": {"type": "Prepend", "prepend": "a" * 100_000}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": BOMB}},
        {"post_processor": {"type": "TemplateProcessing", "single": [{}] * 5000}},
    ],
)
def test_a_tokenizer_that_makes_texts_explode_is_refused(bert: Path, tmp_path: Path, steps: dict[str, Any]) -> None:
    edit(bert / "tokenizer.json", **steps)
    fails(RecipeError, "tokenizer.json: its ", bert, tmp_path / "out")


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(archive: bytes, **members: bytes) -> bytes:
    """Write an archive anew, deflated, with some of its members replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, members.get(name.rpartition("/")[2].replace(".", "_"), old.read(name)))
    return buffer.getvalue()


def added(archive: bytes, name: str) -> bytes:
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as more:
        more.writestr(name, b"x")
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


BAD = "not a valid file of pickled weights"


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("pickle", Refused, "its pickle calls posix.system"),
        ("inside", Refused, "its pickle calls posix.system"),
        ("bomb", StageFailed, "in it is packed"),
        ("expanded", StageFailed, "its tensors take 40,000,000,000 bytes"),
        ("climbs", StageFailed, BAD),
        ("scripted", StageFailed, BAD),
        ("deep", StageFailed, BAD),
        ("zeros", StageFailed, BAD),
    ],
)
def test_pickled_weights_from_a_stranger(
    kind: str, error: type[PipelineError], says: str, bert: Path, tmp_path: Path
) -> None:
    """Nothing of them is run, and none takes the memory of the machine; the message gives no advice of torch's."""
    owned, good = tmp_path / "owned", saved({"a": torch.ones(2)})
    data = {
        "pickle": lambda: pickle.dumps({"a": Touch(owned)}, 2),
        "inside": lambda: saved({"a": Touch(owned)}),
        "bomb": lambda: packed(good, data_pkl=b"\0" * 1_000_000),
        "expanded": lambda: saved({"a": torch.ones(1).expand(10**10)}),
        "climbs": lambda: added(good, "../../owned"),
        "scripted": scripted,
        "deep": lambda: b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        "zeros": lambda: b"\0" * 4096,
    }[kind]()
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(error) as caught:
        load(bert, tmp_path / "out", allow={"pickle"})
    assert says in str(caught.value) and str(caught.value).startswith("pytorch_model.bin: ")
    assert "weights_only" not in str(caught.value).lower() or kind not in ("pickle", "inside")
    assert not owned.exists()
    fails(Refused, "allow: [pickle]", bert, tmp_path / "again")


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_a_pickle_called_safetensors(kind: str, bert: Path, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    evil = {"a": Touch(owned)}
    (bert / "model.safetensors").write_bytes(pickle.dumps(evil) if kind == "pickle" else saved(evil))
    fails(StageFailed, "it is a pickle, whatever its name says", bert, tmp_path / "out", allow={"pickle"})
    assert not owned.exists()


@pytest.mark.parametrize("depth", [101, 600, 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_deep_configuration_is_named(file: str, depth: int, bert: Path, tmp_path: Path) -> None:
    text = (bert / file).read_text().strip()
    (bert / file).write_text(text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}")
    fails(StageFailed, f"{file}: not a valid ", bert, tmp_path / "out")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"{}\0", b"null", b'{"a": NaN' + b"9" * 5000 + b"}", b"\xff\xfe{}"])
def test_a_damaged_file_is_named(file: str, data: bytes, bert: Path, tmp_path: Path) -> None:
    (bert / file).write_bytes(data)
    fails(StageFailed, f"{file}: not a valid ", bert, tmp_path / "out")


@pytest.mark.parametrize("change", ["infinite id", "wrong type"])
def test_a_tokenizer_that_only_one_reader_refuses(change: str, bert: Path, tmp_path: Path) -> None:
    """What mutated files have shown: each reader of tokenizer.json refuses other things."""
    value = json.loads((bert / "tokenizer.json").read_text())
    word = next(iter(value["model"]["vocab"]))
    value["model"]["vocab"][word] = float("inf") if change == "infinite id" else True
    (bert / "tokenizer.json").write_text(json.dumps(value).replace("Infinity", "1e400"))
    fails(StageFailed, "tokenizer.json: ", bert, tmp_path / "out")
