"""fastpath: the answers of transformers, for every architecture and head, and no padding token computed."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from cpu_pipeline.backends import _encoder, fastpath, hf
from cpu_pipeline.backends._packed import Layout
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.tasks._base import Task
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification
from cpu_pipeline.tasks.token_classification import TokenClassification

TASKS = {
    "QuestionAnswering": QuestionAnswering(),
    "SequenceClassification": TextClassification(),
    "TokenClassification": TokenClassification(),
    "": SentenceSimilarity(),
}
WORDS, SIZE, LAYERS, HEADS, POSITIONS = 90, 32, 2, 4, 64
COMMON = {
    "vocab_size": WORDS,
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "num_labels": 2,
}
ROBERTA = {**COMMON, "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", COMMON),
    "camembert": ("Camembert", ROBERTA),
    "distilbert": (
        "DistilBert",
        {"vocab_size": WORDS, "dim": SIZE, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 48}
        | {"max_position_embeddings": POSITIONS, "num_labels": 2},
    ),
    "electra": ("Electra", {**COMMON, "embedding_size": 16}),
    # Sequences must be longer than the distances that have buckets of their own.
    "mpnet": ("MPNet", {**COMMON, "pad_token_id": 1, "max_position_embeddings": POSITIONS + 2}),
    "roberta": ("Roberta", ROBERTA),
    "xlm-roberta": ("XLMRoberta", {**ROBERTA, "pad_token_id": 3}),
}
LENGTHS = (5, 40, 17, 17, 1, 40)


@cache
def built(kind: str, head: str) -> Any:
    """Make a random model once; it is not to be changed."""
    family, settings = FAMILIES[kind]
    config = getattr(transformers, f"{family}Config")(**settings)
    class_ = getattr(transformers, f"{family}For{head}" if head else f"{family}Model")
    model = class_._from_config(config)
    models.fill(model, 0)
    return model.eval().requires_grad_(False)


def session(kind: str, head: str, *way: str) -> fastpath.PaddingFree:
    return fastpath.PaddingFree(copy.deepcopy(built(kind, head)), TASKS[head], *way)


def batch(names: tuple[str, ...], lengths: tuple[int, ...] = LENGTHS, pad: int = 0, width: int = 0) -> dict[str, Any]:
    """Draw right-padded arrays; among the real tokens are some with the id of padding."""
    rng = np.random.default_rng(0)
    width = width or max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    drawn = {
        "input_ids": np.where(mask == 1, rng.integers(0, WORDS, mask.shape), pad),
        "attention_mask": mask,
        "token_type_ids": mask * rng.integers(0, 2, mask.shape),
    }
    return {name: drawn[name] for name in names}


def assert_same(ours: Any, theirs: Any, arrays: dict[str, Any], task: Task, within: float) -> None:
    mask = arrays["attention_mask"].astype(bool)
    assert list(ours) == list(task.outputs)
    for name, answer in ours.items():
        expected = theirs[name]
        assert answer.shape == expected.shape and answer.dtype == np.float32
        assert np.ptp(expected) > 0.1, "answers that are all alike test nothing"
        if task.per_token:
            assert np.abs(answer[mask] - expected[mask]).max() < within
            assert (answer[~mask] == 0).all(), "padding is answered with zeros"
        else:
            assert np.abs(answer - expected).max() < within


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("head", TASKS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_architecture_and_head_answers_as_transformers_does(kind: str, head: str) -> None:
    ours, reference = session(kind, head), hf.Eager(built(kind, head), TASKS[head].outputs)
    assert ours.inputs == reference.inputs
    pad = built(kind, head).config.pad_token_id or 0
    for arrays in (
        batch(ours.inputs, pad=pad),
        batch(ours.inputs, pad=pad, width=60),
        batch(ours.inputs, (60, 60, 60)),
        batch(ours.inputs, (12, 12), pad, 20),
    ):
        assert_same(ours(arrays), reference(arrays), arrays, TASKS[head], 1e-5)


def test_every_architecture_is_tried() -> None:
    assert set(FAMILIES) == set(_encoder.ARCHITECTURES)
    assert {task.auto_class for task in TASKS.values()} == set(_encoder.HEADS)


@pytest.mark.parametrize("head", TASKS)
@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"mpnet"}))
def test_nested_answers_as_transformers_does(kind: str, head: str) -> None:
    ours, reference = session(kind, head, "nested"), hf.Eager(built(kind, head), TASKS[head].outputs)
    for lengths in (LENGTHS, (30, 30)):
        arrays = batch(ours.inputs, lengths, built(kind, head).config.pad_token_id or 0)
        assert_same(ours(arrays), reference(arrays), arrays, TASKS[head], 1e-5)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "electra"])
def test_bfloat16_answers_nearly_so(kind: str) -> None:
    ours, reference = session(kind, "", "packed", "bfloat16"), hf.Eager(built(kind, ""), TASKS[""].outputs)
    arrays = batch(ours.inputs)
    assert_same(ours(arrays), reference(arrays), arrays, TASKS[""], 0.15)
    mask = arrays["attention_mask"].astype(bool)
    gap = np.abs(ours(arrays)["last_hidden_state"] - reference(arrays)["last_hidden_state"])[mask]
    assert gap.max() > 1e-3, "this is float32"


class Seen(TorchDispatchMode):
    """Notes every operation of torch, with the shapes of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if isinstance(first, torch.Tensor):
            self.calls.append((func.overloadpacket.__name__, tuple(first.shape)))
        return result

    def shapes(self, *names: str) -> list[tuple[int, ...]]:
        return [shape for name, shape in self.calls if name in names]


def watched(ours: fastpath.PaddingFree, arrays: dict[str, Any]) -> Seen:
    with Seen() as seen:
        ours(arrays)
    return seen


PER_TOKEN = ("linear", "addmm", "mm", "gelu", "native_layer_norm", "layer_norm", "embedding", "add", "add_")
ATTENTION = ("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention")


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_padding_token_is_computed(kind: str) -> None:
    ours = session(kind, "QuestionAnswering")
    seen = watched(ours, batch(ours.inputs, LENGTHS, built(kind, "QuestionAnswering").config.pad_token_id or 0, 50))
    real = sum(LENGTHS)
    # Relative positions are of pairs of places, the same for all sequences.
    rows = [shape[:-1] for shape in seen.shapes(*PER_TOKEN) if shape[-1] in (SIZE, 3 * SIZE, 48, 16, 2)]
    assert len(rows) >= 9 * LAYERS + 4, "products, norms, activations, residuals, embeddings and the head"
    assert all(int(np.prod(shape)) == real for shape in rows), sorted(set(rows))
    attended = seen.shapes(*ATTENTION)
    assert [shape[0] for shape in attended] == [2, 2, 1, 1] * LAYERS, "neighbours of equal length attend in one call"
    assert sum(shape[0] * shape[2] for shape in attended) == LAYERS * real


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_without_padding_the_batch_is_not_moved(kind: str) -> None:
    ours = session(kind, "QuestionAnswering")
    seen = watched(ours, batch(ours.inputs, (20, 20, 20)))
    assert [shape[:3] for shape in seen.shapes(*ATTENTION)] == [(3, HEADS, 20)] * LAYERS
    moved = [shape for shape in seen.shapes("index", "index_put_", "index_select", "cat") if shape != (3,)]
    assert not moved, "what was not padded need not be packed"
    padded = watched(ours, batch(ours.inputs, (20, 7)))
    assert padded.shapes("index") and padded.shapes("index_put_") and padded.shapes("cat")


@pytest.mark.parametrize("lengths", [LENGTHS, (30, 30)])
def test_nested_takes_the_fast_path_of_torch(lengths: tuple[int, ...]) -> None:
    ours = session("roberta", "QuestionAnswering", "nested")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ours(batch(ours.inputs, lengths, 1))
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::_transformer_encoder_layer_fwd"] == LAYERS
    assert ("aten::_nested_tensor_from_mask" in counts) == (len(set(lengths)) > 1)


def test_layout_puts_equal_lengths_together() -> None:
    layout = Layout.of([2, 3, 2], 4)
    assert layout.groups == ((1, 3), (2, 2))
    assert layout.places.tolist() == [4, 5, 6, 0, 1, 8, 9] and layout.first.tolist() == [3, 0, 5]
    padded = torch.arange(12).view(3, 4)
    assert layout.unpack(layout.pack(padded)).tolist() == [[0, 1, 0, 0], [4, 5, 6, 0], [8, 9, 0, 0]]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ([[1, 1], [0, 0]], "no real token"),
        ([[]], "no real token"),
        ([[0, 1, 1]], "pad on the right"),
        ([[1, 0, 1]], "pad on the right"),
        ([[2, 1, 0]], "pad on the right"),
    ],
)
@pytest.mark.parametrize("way", fastpath.IMPLEMENTATIONS)
def test_batches_that_make_no_sense_are_refused(mask: list[list[int]], says: str, way: str) -> None:
    ours = session("distilbert", "QuestionAnswering", way)
    given = np.array(mask, dtype=np.int64)
    with pytest.raises(StageFailed, match=says):
        ours({"input_ids": np.full_like(given, 7), "attention_mask": given})


@pytest.mark.parametrize("way", fastpath.IMPLEMENTATIONS)
def test_too_long_and_unknown_tokens_are_refused(way: str) -> None:
    ours = session("roberta", "QuestionAnswering", way)
    with pytest.raises(StageFailed, match=r"batch of 1x70 tokens: it is longer"):
        ours(batch(ours.inputs, (70,)))
    arrays = batch(ours.inputs, (9, 4), 1)
    arrays["input_ids"][0, 3] = WORDS
    with pytest.raises(StageFailed, match="vocabulary lacks"):
        ours(arrays)


REFUSED = {
    "gpt2": (
        transformers.GPT2Config(),
        "a gpt2; encoders .* bert, camembert, distilbert, electra, mpnet, roberta",
    ),
    "decoder": (transformers.BertConfig(is_decoder=True), "sets is_decoder"),
    "cross": (transformers.BertConfig(add_cross_attention=True), "sets add_cross_attention"),
    "relative": (transformers.BertConfig(position_embedding_type="relative_key"), "to relative_key; only absolute"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_models_are_refused(case: str) -> None:
    config, says = REFUSED[case]
    with pytest.raises(StageFailed, match=says):
        fastpath.check(config, TASKS[""], "packed")


def test_other_heads_are_refused() -> None:
    class Pooled(SentenceSimilarity):
        outputs = ("pooler_output",)

    class Masked(SentenceSimilarity):
        auto_class = "AutoModelForMaskedLM"
        outputs = ("logits",)

    for task in (Pooled(), Masked()):
        with pytest.raises(StageFailed, match="is not a head that runs without padding; those are AutoModel, "):
            fastpath.check(transformers.BertConfig(), task, "packed")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (transformers.MPNetConfig(), "relative positions; use `packed`"),
        (transformers.BertConfig(hidden_act="gelu_new"), "the model uses gelu_new"),
        (transformers.DistilBertConfig(activation="silu"), "the model uses silu"),
        (transformers.BertConfig(hidden_size=30, num_attention_heads=3), "even number of attention heads"),
    ],
)
def test_nested_refuses_what_torch_would_run_slowly(config: Any, says: str) -> None:
    with pytest.raises(StageFailed, match=says):
        fastpath.check(config, TASKS[""], "nested")
    assert fastpath.check(config, TASKS[""], "packed")


CARD = Card("fastpath", runtime={"implementation": "packed", "dtype": "float32"})


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = models.make("bert", tmp_path / "model")
    CARD.write(path)
    return path


def test_load_runs_what_the_card_says(artifact: Path) -> None:
    task = QuestionAnswering()
    arrays = batch(tuple(TOKENS))
    packed = fastpath.load(artifact, task, 1)(arrays)
    assert_same(packed, hf.load(artifact, task, 1)(arrays), arrays, task, 1e-5)
    replace(CARD, runtime={"implementation": "packed", "dtype": "bfloat16"}).write(artifact)
    half = fastpath.load(artifact, task, 1)(arrays)
    assert 1e-3 < np.abs(half["start_logits"] - packed["start_logits"]).max() < 0.2


def test_load_without_a_task_gives_hidden_states(tmp_path: Path) -> None:
    path = models.make("distilbert", tmp_path, "sentence-similarity")
    CARD.write(path)
    ours = fastpath.load(path, None, 0)
    answer = ours(batch(ours.inputs, (9, 4)))
    assert list(answer) == ["last_hidden_state"] and answer["last_hidden_state"].shape == (2, 9, models.HIDDEN)


@pytest.mark.parametrize(
    "runtime",
    [
        {},
        {"implementation": "packed"},
        {"implementation": "padded", "dtype": "float32"},
        {"implementation": "packed", "dtype": "float16"},
    ],
)
def test_another_card_is_refused(artifact: Path, runtime: dict[str, str]) -> None:
    replace(CARD, runtime=runtime).write(artifact)
    with pytest.raises(StageFailed, match=r"cpu_pipeline.json is missing or not one of fastpath"):
        fastpath.load(artifact, QuestionAnswering(), 1)


def test_a_bare_checkpoint_and_other_formats_are_refused(artifact: Path) -> None:
    replace(CARD, format="onnx").write(artifact)
    with pytest.raises(StageFailed, match="not one of fastpath"):
        fastpath.load(artifact, QuestionAnswering(), 1)
    (artifact / "cpu_pipeline.json").unlink()
    with pytest.raises(StageFailed, match="is missing"):
        fastpath.load(artifact, QuestionAnswering(), 1)


def test_needs_that_are_not_here_are_a_missing_backend(artifact: Path) -> None:
    replace(CARD, needs=("quantum",)).write(artifact)
    with pytest.raises(BackendMissing, match="built for quantum"):
        fastpath.load(artifact, QuestionAnswering(), 1)


@pytest.mark.parametrize("break_it", [lambda p: p.write_bytes(b""), lambda p: save_file({"x": torch.ones(2)}, p)])
def test_broken_weights_are_a_failed_stage(artifact: Path, break_it: Callable[[Path], object]) -> None:
    break_it(artifact / fastpath.MODEL)
    with pytest.raises(StageFailed):
        fastpath.load(artifact, QuestionAnswering(), 1)


def test_the_lines_of_usage_run(artifact: Path) -> None:
    said: dict[str, Any] = {}
    exec(fastpath.usage(str(artifact), QuestionAnswering()), said)
    assert said["outputs"]["start_logits"].shape == said["inputs"]["input_ids"].shape
    json.dumps(said["outputs"]["end_logits"].tolist())
