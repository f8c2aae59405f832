"""Folders of any settings and any order of modules: we give what sentence-transformers gives, or refuse."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sentence_models import SIZE, body
from sentence_transformers import SentenceTransformer
from suites.fidelity.embedding import TOLERANCE, ours

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._activations import ACTIVATIONS
from cpu_pipeline.tasks._pooling import FLAGS, POOLS
from cpu_pipeline.tasks._transformer import FILES

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.",
    "Dense": "sentence_transformers.base.modules.dense.",
    "Normalize": "sentence_transformers.base.modules.normalize.",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.",
    "Dropout": "sentence_transformers.sentence_transformer.modules.dropout.",
}
TEXTS = ("red house", "The OLD bridge " * 9, "x [SEP] Éa")
NAMES = st.sampled_from(["sentence_embedding", "token_embeddings", None])


def some(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw some of the keys."""
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def pooling(draw: st.DrawFn) -> dict[str, Any]:
    said: dict[str, Any] = {draw(st.sampled_from(["embedding_dimension", "word_embedding_dimension"])): SIZE}
    said |= draw(some(**{f"pooling_mode_{flag}": st.booleans() for flag in FLAGS}))
    modes = st.sampled_from(sorted(POOLS))
    return said | draw(some(pooling_mode=modes | st.lists(modes, min_size=1, max_size=3), include_prompt=st.booleans()))


@st.composite
def module(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(["Pooling", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"]))
    if kind == "Pooling":
        return kind, draw(pooling())
    if kind == "Dense":
        sizes = st.sampled_from([SIZE, SIZE, 2 * SIZE, 8])
        said = {"in_features": draw(sizes), "out_features": draw(sizes), "bias": draw(st.booleans())}
        names = st.sampled_from([f"torch.nn.modules.activation.{name}" for name in ACTIVATIONS if name != "Identity"])
        asked = some(activation_function=names, use_residual=st.booleans(), module_input_name=NAMES.filter(bool),
                     module_output_name=NAMES, strange=st.just(5))  # fmt: skip
        return kind, said | draw(asked)
    asked = {"Normalize": some(module_input_name=NAMES.filter(bool), module_output_name=NAMES),
             "LayerNorm": st.just({"dimension": SIZE}), "Dropout": st.just({"dropout": 0.5})}  # fmt: skip
    return kind, draw(asked[kind])


LENGTHS = st.none() | st.integers(4, 40)
TRANSFORMER = some(
    max_seq_length=LENGTHS, do_lower_case=st.booleans(), tokenizer_args=some(model_max_length=st.integers(5, 30)),
    processing_kwargs=some(text=some(max_length=st.integers(5, 30)), common=some(padding=st.just(True))),
)  # fmt: skip
PROMPTS = st.dictionaries(
    st.sampled_from(["query", "document", "a"]), st.none() | st.sampled_from(["", "red ", "A [SEP]"])
)
MAIN = some(
    prompts=PROMPTS, default_prompt_name=st.sampled_from([None, "query", "a"]), truncate_dim=st.integers(1, 80),
    similarity_fn_name=st.sampled_from([None, "cosine", "dot", "maxsim"]), strange=st.just(5),
)  # fmt: skip
FOLDERS = st.fixed_dictionaries(
    {
        "modules": st.lists(module(), max_size=5),
        "new": st.booleans(),
        "transformer": st.dictionaries(st.sampled_from(FILES), TRANSFORMER, max_size=2),
        "main": st.none() | MAIN,
        "model_max_length": st.sampled_from([None, 12, 64, 512, 10**30]),
    }
)


def write(out: Path, said: Mapping[str, Any]) -> Path:
    shutil.copytree(body("bert"), out)
    entries = [{"idx": 0, "name": "0", "path": "", "type": _type("Transformer", said["new"])}]
    for number, (kind, config) in enumerate(said["modules"], 1):
        folder = out / f"{number}_{kind}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        if weights := _weights(kind, config):
            save_file(weights, folder / "model.safetensors")
        entries.append({"idx": 9, "name": str(number), "path": folder.name, "type": _type(kind, said["new"])})
    (out / "modules.json").write_text(json.dumps(entries))
    for name, config in said["transformer"].items():
        (out / name).write_text(json.dumps(config))
    if said["main"] is not None:
        (out / "config_sentence_transformers.json").write_text(json.dumps(said["main"]))
    file = out / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": said["model_max_length"]}))
    return out


def _type(kind: str, new: bool) -> str:
    return (NEW[kind] if new else OLD) + kind


def _weights(kind: str, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    if kind == "LayerNorm":
        return {f"norm.{name}": torch.randn(SIZE, generator=generator) for name in ("weight", "bias")}
    if kind != "Dense":
        return {}
    shape = (config["out_features"], config["in_features"])
    found = {"linear.weight": torch.randn(shape, generator=generator) * 0.3}
    if config["bias"]:
        found["linear.bias"] = torch.randn(shape[0], generator=generator)
    if config.get("use_residual") and shape[0] != shape[1]:
        found["residual.weight"] = torch.randn(shape, generator=generator) * 0.3
    return found


SEEN = {"equal": 0, "refused": 0}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(FOLDERS)
def _any_folder(said: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(Path(scratch) / "model", said)
        try:
            mine = ours(folder, TEXTS)
        except RecipeError:
            SEEN["refused"] += 1
            return
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        right = [model.encode([text])[0] for text in TEXTS]
        SEEN["equal"] += 1
    for one, other, text in zip(mine, right, TEXTS, strict=True):
        scale = np.abs(other).max(initial=1e-3, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, atol=TOLERANCE * scale, err_msg=text)


def test_what_we_embed_is_what_sentence_transformers_embeds() -> None:
    _any_folder()
    assert min(SEEN.values()) > 25


PLAIN: dict[str, dict[str, Any]] = {
    "Pooling": {"embedding_dimension": SIZE},
    "Dense": {"in_features": SIZE, "out_features": 8, "bias": True},
    "LayerNorm": {"dimension": SIZE},
    "Dropout": {"dropout": 0.5},
}


@pytest.mark.parametrize("kinds", [["LayerNorm", "Pooling"], ["Dense", "Pooling"], ["Dropout", "Pooling"], []], ids=str)
def test_an_order_that_we_refuse_does_not_run_elsewhere(tmp_path: Path, kinds: list[str]) -> None:
    modules = [(kind, PLAIN[kind]) for kind in kinds]
    said = {"modules": modules, "new": True, "transformer": {}, "main": None, "model_max_length": 64}
    folder = write(tmp_path / "model", said)
    with pytest.raises(RecipeError):
        ours(folder, TEXTS)
    with pytest.raises(KeyError):
        SentenceTransformer(str(folder), device="cpu").encode(TEXTS[0])
