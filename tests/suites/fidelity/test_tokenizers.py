"""Every tokenizer of the zoo encodes here as AutoTokenizer does, on any text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from suites.fidelity import tokenizers_zoo as zoo
from transformers import AutoTokenizer

from cpu_pipeline.stages.load import _corpus, _tokenizer
from cpu_pipeline.tasks import _tokens

LENGTHS = (8, 16, 128)
pieces = st.sampled_from(
    [*(text[:40] for text in _corpus.ODD if text), *zoo.CORPUS[0].split()[:30], *zoo.BERT, *zoo.ROBERTA, "  ", "<two>",
     "<both>", "left", "single", "Raw", "folded", "<three>", "anna"]
)  # fmt: skip
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.one_of(pieces, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)), max_size=8).map("".join),
    st.lists(pieces, max_size=30).map(" ".join),
)


class Both(NamedTuple):
    """One tokenizer as this project reads it and as transformers does."""

    folder: Path
    official: Any
    words: Any
    types: bool


@pytest.fixture(scope="module", params=zoo.ZOO)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    original = zoo.make(request.param, tmp_path_factory.mktemp("zoo") / "original")
    folder = Path(shutil.copytree(original, original.parent / "loaded"))
    config = json.loads((folder / "config.json").read_text())
    _tokenizer.complete(folder, config)
    official = AutoTokenizer.from_pretrained(original)
    words = AutoTokenizer.from_pretrained(original, add_prefix_space=True)
    if hasattr(words.backend_tokenizer.pre_tokenizer, "add_prefix_space"):
        words.backend_tokenizer.pre_tokenizer.add_prefix_space = True
    else:
        words = official
    yield Both(folder, official, words, config.get("type_vocab_size", 0) > 1)


def same(both: Both, ours: Any, official: Any, number: int) -> None:
    got = _tokens.inputs(ours, both.folder)
    assert got["input_ids"] == official["input_ids"][number]
    assert got["attention_mask"] == official.get("attention_mask", {number: [1] * len(ours.ids)})[number]
    if both.types:
        assert got["token_type_ids"] == official.get("token_type_ids", {number: [0] * len(ours.ids)})[number]
    if "offset_mapping" in official:
        assert ours.offsets == [tuple(span) for span in official["offset_mapping"][number]]


EXAMPLES = settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@EXAMPLES
@given(batch=st.lists(texts, min_size=1, max_size=4), length=st.sampled_from(LENGTHS))
def test_texts(both: Both, batch: list[str], length: int) -> None:
    official = both.official(batch, truncation=True, max_length=length, return_offsets_mapping=True)
    for number, ours in enumerate(_tokens.tokenizer(both.folder, length).encode_batch(batch)):
        same(both, ours, official, number)


@EXAMPLES
@given(first=texts, second=texts, length=st.sampled_from(LENGTHS))
def test_pairs(both: Both, first: str, second: str, length: int) -> None:
    official = both.official([first], [second], truncation=True, max_length=length, return_offsets_mapping=True)
    same(both, _tokens.tokenizer(both.folder, length).encode(first, second), official, 0)


@EXAMPLES
@given(words=st.lists(texts.filter(bool), min_size=1, max_size=8))
def test_words(both: Both, words: list[str]) -> None:
    official = both.words([words], is_split_into_words=True, truncation=True, max_length=64)
    ours = _tokens.tokenizer(both.folder, 64, prefix_space=True).encode(words, is_pretokenized=True)
    same(both, ours, official, 0)
    assert ours.word_ids == official.word_ids(0)


def test_transformers_reads_the_folder_as_it_read_the_original(both: Both) -> None:
    again = AutoTokenizer.from_pretrained(both.folder)
    for text in _corpus.texts(both.official.get_added_vocab()):
        expected = both.official(text, truncation=True, max_length=64)
        found = again(text, truncation=True, max_length=64)
        assert found["input_ids"] == expected["input_ids"]
        if both.types:
            empty = [0] * len(expected["input_ids"])
            assert found.get("token_type_ids", empty) == expected.get("token_type_ids", empty)
