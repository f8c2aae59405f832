"""Folders that sentence-transformers wrote, of every kind, give its own vectors here.

The right values are sentence-transformers' own: `encode` of one text at a time, in float32.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_models import KINDS, body
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer
from stages.conftest import job_for, task_named
from suites.fidelity.embedding import TOLERANCE, ours

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.stages.load.model import LoadModel
from cpu_pipeline.stages.prune.magnitude import PruneMagnitude
from cpu_pipeline.tasks import _sentences
from cpu_pipeline.tasks._activations import ACTIVATIONS
from cpu_pipeline.tasks._transformer import ALIASES

SIZE = 32
MODES = Pooling.POOLING_MODES
TEXTS = (
    "red house",
    "The Old bridge, and a NEW one; is it good?",
    "winter " * 40,
    "x",
    "Grüße an Ödön — ﬁne ÀÉÎ ΣΊΣΥΦΟΣ",
    "[SEP] </s> <|endoftext|> red",
    "   red   ",
)


@cache
def torch_seed() -> None:
    torch.manual_seed(0)


def save(out: Path, kind: str, modules: Sequence[Any], **settings: Any) -> Path:
    """Write a folder with sentence-transformers: a tiny body and the modules after it."""
    torch_seed()
    transformer = Transformer(str(body(kind)), **settings.pop("transformer", {}))
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.5)
    model.save(str(out), create_model_card=False)
    return out


def theirs(folder: Path, texts: Sequence[str], **options: Any) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    return np.stack([model.encode([text], **options)[0] for text in texts])


def agree(folder: Path, texts: Sequence[str] = TEXTS, asked: dict[str, Any] | None = None, **options: Any) -> None:
    one, other = ours(folder, texts, **options), theirs(folder, texts, **asked or {})
    assert one.shape == other.shape
    for mine, right, text in zip(one, other, texts, strict=True):
        scale = np.abs(right).max(initial=1e-3, where=np.isfinite(right))
        np.testing.assert_allclose(mine, right, atol=TOLERANCE * scale, err_msg=text)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_of_pooling_of_every_architecture(tmp_path: Path, kind: str, mode: str) -> None:
    agree(save(tmp_path, kind, [Pooling(SIZE, mode)]))


@pytest.mark.parametrize(
    "modes", [*itertools.permutations(MODES, 2), MODES, MODES[::-1], ("mean", "mean", "cls")], ids="-".join
)
def test_modes_are_joined_in_the_file_s_order(tmp_path: Path, modes: tuple[str, ...]) -> None:
    agree(save(tmp_path, "bert", [Pooling(SIZE, modes), Dense(SIZE * len(modes), 8)]), TEXTS[:3])


@pytest.mark.parametrize("flags", [*itertools.combinations(range(6), 2), range(6), ()], ids=str)
def test_flags_of_older_files_are_joined_in_their_own_order(tmp_path: Path, flags: Sequence[int]) -> None:
    names = ("mean_tokens", "lasttoken", "cls_token", "weightedmean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    width = SIZE * max(1, len(flags))
    folder = save(tmp_path, "bert", [Pooling(SIZE, MODES[: len(flags)] or "mean"), Dense(width, 8)])
    said = {f"pooling_mode_{name}": number in flags for number, name in enumerate(names)}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": SIZE, **said}))
    agree(folder, TEXTS[:3])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_layers_with_every_activation(tmp_path: Path, name: str) -> None:
    agree(
        save(tmp_path, "bert", [Pooling(SIZE), Dense(SIZE, 24, activation_function=getattr(torch.nn, name)())]),
        TEXTS[:4],
    )


AFTER: dict[str, Any] = {
    "none": list,
    "normalize": lambda: [Normalize()],
    "dense": lambda: [Dense(SIZE, 16)],
    "dense without bias": lambda: [Dense(SIZE, 16, bias=False, activation_function=torch.nn.Identity())],
    "dense, residual": lambda: [Dense(SIZE, SIZE, use_residual=True)],
    "dense, residual through weights": lambda: [Dense(SIZE, 16, use_residual=True)],
    "two dense, normalize": lambda: [Dense(SIZE, 48), Dropout(), Dense(48, 12, activation_function=None), Normalize()],
    "normalize, dense": lambda: [Normalize(), Dense(SIZE, 16)],
    "layer norm": lambda: [LayerNorm(SIZE)],
    "layer norm, dense, normalize": lambda: [LayerNorm(SIZE), Dense(SIZE, 7), Normalize()],
    "dropout": lambda: [Dropout(0.9)],
}  # fmt: skip


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_what_follows_pooling(tmp_path: Path, kind: str, after: str) -> None:
    agree(save(tmp_path, kind, [Pooling(SIZE), *AFTER[after]()]))


def test_modules_of_tokens_before_pooling(tmp_path: Path) -> None:
    tokens = {"module_input_name": "token_embeddings"}
    modules = [Dense(SIZE, 16, **tokens), Normalize(**tokens), Pooling(16, ("mean", "max")), Normalize()]
    agree(save(tmp_path, "bert", modules))


def test_a_second_pooling_replaces_what_came_before(tmp_path: Path) -> None:
    agree(save(tmp_path, "bert", [Pooling(SIZE), Dense(SIZE, 8), Pooling(SIZE, "cls"), Normalize()]))


PROMPTS = {"query": "Query: the old ", "passage": "passage : ", "long": "winter " * 30, "end": "red [SEP]"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("include", [True, False], ids=["included", "left out"])
def test_prompts(tmp_path: Path, kind: str, mode: str, include: bool) -> None:
    folder = save(
        tmp_path, kind, [Pooling(SIZE, mode, include_prompt=include)],
        prompts=PROMPTS, default_prompt_name="passage", transformer={"max_seq_length": 48},
    )  # fmt: skip
    texts = [*TEXTS[:5], "a"]
    agree(folder, texts)
    for name in ("query", "document", "end"):
        agree(folder, texts, {"prompt_name": name}, prompt=name)
    agree(folder, texts, {"prompt": "the cost of a"}, prompt={"text": "the cost of a"})
    agree(folder, texts, {"prompt": ""}, prompts={"sentence1": {"text": ""}})


def test_a_prompt_longer_than_the_limit(tmp_path: Path) -> None:
    for include in (True, False):
        folder = save(
            tmp_path / str(include), "bert", [Pooling(SIZE, "mean", include_prompt=include)],
            prompts=PROMPTS, transformer={"max_seq_length": 16},
        )  # fmt: skip
        agree(folder, TEXTS[:3], {"prompt_name": "long"}, prompt="long")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [None, 8, 17, 64])
def test_lengths(tmp_path: Path, kind: str, length: int | None) -> None:
    texts = ["winter house " * n for n in (2, 5, 9, 30, 60)]
    folder = save(tmp_path, kind, [Pooling(SIZE)], transformer={"max_seq_length": length})
    agree(folder, texts)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 20}))
    agree(folder, texts)
    for name in ("sentence_roberta_config.json", "sentence_xlnet_config.json"):
        (folder / "sentence_bert_config.json").write_text("{}")
        (folder / name).write_text(json.dumps({"max_seq_length": 11, "do_lower_case": True}))
        agree(folder, [*texts, *TEXTS])
        (folder / name).unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_lowered(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind, [Pooling(SIZE)])
    file = tmp_path / "sentence_bert_config.json"
    said = json.loads(file.read_text()) | {"do_lower_case": True}
    file.write_text(json.dumps(said))
    agree(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_modules(tmp_path: Path, kind: str) -> None:
    shutil.copytree(body(kind), tmp_path / "plain")
    agree(tmp_path / "plain")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "t5"])
def test_an_empty_text_has_its_special_tokens(tmp_path: Path, kind: str) -> None:
    agree(save(tmp_path, kind, [Pooling(SIZE, ("cls", "mean", "lasttoken"))]), ["", " ", "red"])


def test_truncated_vectors(tmp_path: Path) -> None:
    agree(save(tmp_path, "bert", [Pooling(SIZE), Normalize()], truncate_dim=10))


def test_what_is_built_of_a_folder_is_such_a_folder(tmp_path: Path) -> None:
    """Its report shows how: SentenceTransformer opens a built checkpoint, with all that follows the transformer."""
    parts = [Pooling(SIZE, ("mean", "cls")), Dense(2 * SIZE, 12), Normalize()]
    folder = save(tmp_path / "st", "bert", parts, prompts=PROMPTS, default_prompt_name="query")
    loaded, built = tmp_path / "loaded", tmp_path / "built"
    for out in (loaded, built):
        out.mkdir()
    LoadModel().run({"files": Artifact("files", folder, "", {})}, loaded, job_for("sentence-similarity"))
    PruneMagnitude(sparsity=0.5).run({"model": Artifact("hf", loaded, "", {})}, built, job_for("sentence-similarity"))
    agree(loaded)
    agree(built)
    names: dict[str, Any] = {}
    exec(hf.usage(str(built), task_named("sentence-similarity")), names)
    np.testing.assert_allclose(names["embeddings"], theirs(built, ["A text", "A text to compare it with"]), atol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(theirs(built, TEXTS[:1]), theirs(folder, TEXTS[:1]), atol=1e-3)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(tmp_path: Path, name: Any) -> None:
    folder = save(tmp_path, "bert", [Pooling(SIZE)], similarity_fn_name=name)
    model = SentenceTransformer(str(folder), device="cpu")
    first, second = model.encode([TEXTS[0]]), model.encode([TEXTS[1]])
    found = _sentences.compare(_sentences.read(folder).similarity, first[0], second[0])
    assert found == pytest.approx(float(model.similarity_pairwise(first, second)[0]), rel=1e-5)


def test_names_of_position_limits_are_those_of_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found = {kind: CONFIG_MAPPING[kind].attribute_map.get("max_position_embeddings") for kind in CONFIG_MAPPING}
    assert {kind: name for kind, name in found.items() if name and kind != "imagegpt"} == ALIASES
