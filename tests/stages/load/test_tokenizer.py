"""A loaded tokenizer encodes as AutoTokenizer does, and a build stops where it would not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from cpu_pipeline.core.errors import BackendMissing, PipelineError, RecipeError, StageFailed
from cpu_pipeline.stages.load import _encodings, _tokenizer
from cpu_pipeline.tasks import _tokens

FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")


def edit(path: Path, **values: Any) -> None:
    said = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**said, **values}))


def complete(folder: Path) -> Path:
    """Complete a copy of a folder's tokenizer."""
    copy = Path(shutil.copytree(folder, folder.with_name("complete")))
    _tokenizer.complete(copy, json.loads((copy / "config.json").read_text()))
    return copy


def changed(folder: Path, copy: Path) -> set[str]:
    return {name for name in FILES if (folder / name).read_bytes() != (copy / name).read_bytes()}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return models.make("bert", tmp_path / "bert", "text-classification")


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return models.make("roberta", tmp_path / "roberta", "text-classification")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "minilm"])
def test_files_that_agree_keep_their_bytes(kind: str, tmp_path: Path) -> None:
    folder = models.make(kind, tmp_path / kind, "text-classification")
    assert changed(folder, complete(folder)) == set()


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"do_lower_case": False}, "Anna", ["[CLS]", "[UNK]", "[SEP]"]),
        ({"do_lower_case": True}, "Anna", ["[CLS]", "anna", "[SEP]"]),
        ({"strip_accents": False}, "annà", ["[CLS]", "[UNK]", "[SEP]"]),
        ({"strip_accents": None}, "annà", ["[CLS]", "anna", "[SEP]"]),
        ({"additional_special_tokens": ["<one>"]}, "anna<one>", ["[CLS]", "anna", "<one>", "[SEP]"]),
        ({"cls_token": "anna"}, "won", ["anna", "won", "[SEP]"]),
    ],
)
def test_settings_are_obeyed(bert: Path, settings: dict[str, Any], text: str, expected: list[str]) -> None:
    edit(bert / "tokenizer_config.json", **settings)
    if "<one>" in text:
        edit(bert / "config.json", vocab_size=json.loads((bert / "config.json").read_text())["vocab_size"] + 1)
    assert AutoTokenizer.from_pretrained(bert)(text).tokens() == expected
    assert Tokenizer.from_file(str(complete(bert) / "tokenizer.json")).encode(text).tokens == expected


def test_a_space_before_the_text_is_obeyed(roberta: Path) -> None:
    edit(roberta / "tokenizer_config.json", add_prefix_space=True)
    expected = AutoTokenizer.from_pretrained(roberta)("anna won").tokens()
    assert expected[1].startswith("Ġ")
    assert Tokenizer.from_file(str(complete(roberta) / "tokenizer.json")).encode("anna won").tokens == expected


def test_tokens_that_other_files_name_are_obeyed(bert: Path) -> None:
    size = json.loads((bert / "config.json").read_text())["vocab_size"]
    (bert / "tokenizer_config.json").unlink()
    edit(bert / "added_tokens.json", **{"<one>": size})
    edit(bert / "special_tokens_map.json", mask_token="anna")
    edit(bert / "config.json", vocab_size=size + 1)
    expected = AutoTokenizer.from_pretrained(bert)("won<one>").input_ids
    assert expected[2] == size
    assert Tokenizer.from_file(str(complete(bert) / "tokenizer.json")).encode("won<one>").ids == expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_are_cut_where_the_settings_say(bert: Path, side: str) -> None:
    edit(bert / "tokenizer_config.json", truncation_side=side)
    folder = complete(bert)
    text = "anna won in rome and boris lost in paris"
    expected = AutoTokenizer.from_pretrained(bert)(text, truncation=True, max_length=6).input_ids
    assert _tokens.tokenizer(folder, 6).encode(text).ids == expected


def test_a_side_that_the_file_alone_names_is_written_down(bert: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    tokenizer.enable_truncation(9, direction="left")
    tokenizer.save(str(bert / "tokenizer.json"))
    edit(bert / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert AutoTokenizer.from_pretrained(bert).truncation_side == "left"
    assert _tokens.settings(complete(bert)).truncation_side == "left"


def test_what_the_tokenizer_gives_is_written_down_where_the_model_takes_more(bert: Path) -> None:
    edit(bert / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(bert)(["anna"], ["won"])
    folder = complete(bert)
    assert _tokens.settings(folder).model_input_names == ("input_ids", "attention_mask")
    encoding = _tokens.tokenizer(folder, 16).encode("anna", "won")
    assert encoding.type_ids == [0, 0, 0, 1, 1]
    assert _tokens.inputs(encoding, folder)["token_type_ids"] == [0] * 5


def test_special_tokens_of_a_class_that_the_model_never_saw_are_no_misfit(bert: Path) -> None:
    said = json.loads((bert / "tokenizer.json").read_text())
    vocabulary = {token: i for i, token in enumerate(t for t in said["model"]["vocab"] if t != "[MASK]")}
    said["model"]["vocab"] = vocabulary
    said["added_tokens"] = [
        {**t, "id": vocabulary[t["content"]]} for t in said["added_tokens"] if t["content"] != "[MASK]"
    ]
    said["post_processor"] |= {"sep": ["[SEP]", vocabulary["[SEP]"]], "cls": ["[CLS]", vocabulary["[CLS]"]]}
    (bert / "tokenizer.json").write_text(json.dumps(said))
    edit(bert / "config.json", vocab_size=len(vocabulary))
    assert AutoTokenizer.from_pretrained(bert).mask_token_id == len(vocabulary)
    assert complete(bert)


@pytest.mark.parametrize(
    ("settings", "guard", "says"),
    [
        ({"do_lower_case": False}, "_agree", "input_ids are .*differ in normalizer"),
        ({"strip_accents": False}, "_agree", "naïve|xe9.*differ in normalizer"),
        ({"sep_token": "anna"}, "_agree", "differ in .*post_processor"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "_name_settings", "token_type_ids are .*model_input_names"),
    ],
)
def test_without_its_guard_the_build_stops(
    bert: Path, settings: dict[str, Any], guard: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(bert / "tokenizer_config.json", **settings)
    monkeypatch.setattr(_tokenizer, guard, lambda *_: None)
    with pytest.raises(RecipeError, match=f"does not encode as transformers' AutoTokenizer does: .*{says}"):
        _tokenizer.compare(bert)


def test_without_its_guard_a_cut_on_the_wrong_side_stops_the_build(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(bert / "tokenizer_config.json", truncation_side="left")
    plain = _tokens.tokenizer

    def on_the_right(*given: Any, **options: Any) -> Any:
        found = plain(*given, **options)
        found.enable_truncation(**{**found.truncation, "direction": "right"})
        return found

    monkeypatch.setattr(_tokens, "tokenizer", on_the_right)
    with pytest.raises(RecipeError, match="cut at 512: offsets are"):
        _tokenizer.compare(bert)


def test_offsets_are_compared(roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(roberta / "tokenizer_config.json", trim_offsets=False)
    _tokenizer.compare(roberta)
    monkeypatch.setattr(_tokenizer, "_agree", lambda *_: None)
    with pytest.raises(RecipeError, match=r"offsets are .*differ in post_processor"):
        _tokenizer.compare(roberta)


def test_comparing_leaves_the_folder_as_it_is(bert: Path) -> None:
    edit(bert / "tokenizer_config.json", do_lower_case=False)
    before = {path.name: path.read_bytes() for path in bert.iterdir() if path.is_file()}
    _tokenizer.compare(bert)
    assert {path.name: path.read_bytes() for path in bert.iterdir() if path.is_file()} == before


def test_the_corpus_covers_what_tokenizers_differ_in(bert: Path) -> None:
    official = AutoTokenizer.from_pretrained(bert)
    cases = list(_encodings.cases(bert, official, official))
    abouts = " ".join(case.about for case in cases)
    assert len(cases) > 100
    for part in (r"\u0301", r"\u65e5", r"\u0645", r"\u200d", r"\x01", "[MASK]", "window 1", "the words", " and "):
        assert part in abouts
    assert max(len(case.official.inputs["input_ids"]) for case in cases) == 512
    assert any(case.official.inputs["input_ids"] == [2, 3] for case in cases)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: edit(f / "tokenizer_config.json", tokenizer_class="AutoModel"), StageFailed, "class 'AutoModel' is"),
        (lambda f: edit(f / "tokenizer_config.json", truncation_side="up"), StageFailed, "Truncation side should be"),
        (lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer.model").write_bytes(b"x")), BackendMissing,
         "tokenizer.model: reading it needs the package `sentencepiece`"),
    ],
)  # fmt: skip
def test_what_transformers_cannot_load_is_named(
    bert: Path, change: Any, error: Any, says: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    change(bert)
    with pytest.raises(error, match=says) as caught:
        _tokenizer.compare(bert)
    assert isinstance(caught.value, PipelineError) and "\n" not in str(caught.value)


def test_a_bpe_that_drops_merges_at_random_is_refused(roberta: Path) -> None:
    said = json.loads((roberta / "tokenizer.json").read_text())
    said["model"]["dropout"] = 0.1
    (roberta / "tokenizer.json").write_text(json.dumps(said))
    edit(roberta / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(RecipeError, match="dropout"):
        _tokenizer.compare(roberta)


@pytest.mark.parametrize(
    ("tokens", "expected"), [({"pad_token": "</s>"}, 2), ({"pad_token": None, "eos_token": "</s>"}, 2), ({}, None)]
)
def test_a_classifier_that_looks_for_its_padding_is_told_it(roberta: Path, tokens: Any, expected: int | None) -> None:
    config = {"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"], "vocab_size": 420}
    (roberta / "config.json").write_text(json.dumps(config))
    (roberta / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))
    if expected is None:
        with pytest.raises(RecipeError, match=r"neither a padding nor an end token.*add pad_token_id"):
            complete(roberta)
    else:
        assert json.loads((complete(roberta) / "config.json").read_text())["pad_token_id"] == expected
