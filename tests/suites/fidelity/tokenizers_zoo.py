"""Tokenizers of every kind that checkpoints bring, made from a small vocabulary: a folder each."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import models
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds

CORPUS = [
    models.TEXT,
    "Café naïve Ångström straße İstanbul don't can't it's 3.14159 1,000 12:30 e-mail@example.org !?.,;:'\"()[]{}",
    "日本語の文章 中文句子。 한국어 مرحبا שלום हिन्दी ไทย Привет мир Ελληνικά 😀 👍🏽",
    "UPPER lower CamelCase snake_case  double  spaces\ttabs\nlines",
]
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
T5 = ("<pad>", "</s>", "<unk>")
Maker = Callable[[Path], dict[str, Any]]
"""Writes the files of a tokenizer into a folder; returns config.json's part of it."""


def save(out: Path, tokenizer: Tokenizer | None, **config: Any) -> None:
    """Write tokenizer.json, where there is one, and tokenizer_config.json."""
    if tokenizer is not None:
        tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(config))


@cache
def _trained(kind: str, prefix_space: bool = False) -> str:
    """Train a bare tokenizer once; return its JSON."""
    size, special = 500, {"wordpiece": BERT, "bpe": ROBERTA, "byte": ROBERTA, "unigram": ROBERTA}[kind]
    if kind == "wordpiece":
        tokenizer = Tokenizer(kinds.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(special), show_progress=False)
        corpus = [*CORPUS, *(text.lower() for text in CORPUS)]
    elif kind == "unigram":
        tokenizer = Tokenizer(kinds.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=list(special), unk_token="<unk>", show_progress=False
        )
        corpus = CORPUS
    else:
        tokenizer = Tokenizer(kinds.BPE(unk_token="<unk>" if kind == "bpe" else None))
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        tokenizer.pre_tokenizer = bytes_ if kind == "byte" else pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(special),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if kind == "byte" else [],
            show_progress=False,
        )
        corpus = CORPUS
    tokenizer.train_from_iterator(corpus, trainer)
    return str(tokenizer.to_str())


def trained(kind: str, prefix_space: bool = False) -> Tokenizer:
    return Tokenizer.from_str(_trained(kind, prefix_space))


def vocabulary(kind: str) -> dict[str, int]:
    return dict(trained(kind).get_vocab())


def bert_tokenizer(**normal: Any) -> Tokenizer:
    tokenizer = trained("wordpiece")
    tokenizer.normalizer = normalizers.BertNormalizer(**normal)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = _framed("[CLS]", 2, "[SEP]", 3)
    return tokenizer


def _framed(first: str, first_id: int, last: str, last_id: int) -> Any:
    return processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, first_id), (last, last_id)],
    )  # fmt: skip


NAMED = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT, strict=True))
NAMED_ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
    "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def wordpiece(file: dict[str, Any] | None = None, kind: str = "BertTokenizer", **config: Any) -> Maker:
    """Make a WordPiece tokenizer whose tokenizer.json normalizes as `file` says and whose settings are `config`."""

    def make(out: Path) -> dict[str, Any]:
        save(out, bert_tokenizer(**(file or {})), tokenizer_class=kind, **NAMED, **config)
        return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}

    return make


def wordpiece_slow(**config: Any) -> Maker:
    """Make a vocab.txt alone."""

    def make(out: Path) -> dict[str, Any]:
        found = vocabulary("wordpiece")
        (out / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(found, key=lambda t: found[t])))
        save(out, None, tokenizer_class="BertTokenizer", **config)
        return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}

    return make


def byte_level(
    kind: str = "RobertaTokenizer",
    model_type: str = "roberta",
    prefix_space: bool = False,
    post: Any = None,
    **config: Any,
) -> Maker:
    """Make a byte-level BPE tokenizer."""

    def make(out: Path) -> dict[str, Any]:
        tokenizer = trained("byte", prefix_space)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = post or processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        save(out, tokenizer, tokenizer_class=kind, **{**NAMED_ROBERTA, **config})
        return {"model_type": model_type, **IDS, **({"type_vocab_size": 1} if model_type == "roberta" else {})}

    return make


def byte_level_slow(kind: str, model_type: str, **config: Any) -> Maker:
    """Make vocab.json and merges.txt alone."""

    def make(out: Path) -> dict[str, Any]:
        said = json.loads(_trained("byte"))["model"]
        (out / "vocab.json").write_text(json.dumps(said["vocab"]))
        merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in said["merges"])
        (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges))
        save(out, None, tokenizer_class=kind, **{**NAMED_ROBERTA, **config})
        return {"model_type": model_type, **IDS}

    return make


def split_byte_level(out: Path) -> dict[str, Any]:
    """Make what Qwen2 and Llama 3 have: a pattern of its own before bytes, and a normal form."""
    tokenizer = trained("byte")
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    save(out, tokenizer, tokenizer_class="Qwen2Tokenizer", eos_token="</s>", pad_token="<pad>", unk_token=None)
    return {"model_type": "qwen2", **IDS}


def with_start(out: Path) -> dict[str, Any]:
    """Make what Llama 3 has: bytes, and a start token from a sequence of post-processors."""
    tokenizer = trained("byte")
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    save(out, tokenizer, tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>")
    return {"model_type": "llama", "bos_token_id": 0, "eos_token_id": 2}


def unigram(
    kind: str, model_type: str, metaspace: dict[str, Any] | None = None, lower: bool = False, **config: Any
) -> Maker:
    """Make a Unigram tokenizer with one of Metaspace's ways to mark spaces."""

    def make(out: Path) -> dict[str, Any]:
        tokenizer = trained("unigram")
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if lower else [])])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**(metaspace or {}))
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = _framed("<s>", 0, "</s>", 2)
        save(out, tokenizer, tokenizer_class=kind, **{**NAMED_ROBERTA, **config})
        return {"model_type": model_type, **IDS}

    return make


def t5(out: Path) -> dict[str, Any]:
    tokenizer = trained("unigram")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    save(
        out,
        tokenizer,
        tokenizer_class="T5Tokenizer",
        extra_ids=0,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    return {"model_type": "t5", "pad_token_id": 1, "eos_token_id": 2}


def sentencepiece_like(kind: str, model_type: str) -> Maker:
    """Make a BPE with byte fallback and spaces as `▁`, as Llama and Gemma have it."""

    def make(out: Path) -> dict[str, Any]:
        said = json.loads(_trained("bpe"))["model"]
        vocab = {token: number for number, token in enumerate(
            dict.fromkeys([*ROBERTA, *(f"<0x{i:02X}>" for i in range(256)), *said["vocab"]])
        )}  # fmt: skip
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in said["merges"]]
        tokenizer = Tokenizer(kinds.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        tokenizer.add_special_tokens(list(ROBERTA))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)]
        )
        named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        save(out, tokenizer, tokenizer_class=kind, **named)
        return {"model_type": model_type, **IDS}

    return make


def pieces(kind: str, model_type: str, file: str, algorithm: str = "unigram", **config: Any) -> Maker:
    """Make a tokenizer whose only file is a sentencepiece model, as its training writes it."""

    def make(out: Path) -> dict[str, Any]:
        import sentencepiece

        sentencepiece.set_min_log_level(2)
        special: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": 3}
        if algorithm == "bpe":
            special |= {"byte_fallback": True, "pad_id": -1, "normalization_rule_name": "identity"}
        with (out / file).open("wb") as written:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(CORPUS * 3), model_writer=written, vocab_size=500, model_type=algorithm,
                hard_vocab_limit=False, num_threads=1, **special,
            )  # fmt: skip
        save(out, None, tokenizer_class=kind, **config)
        return {"model_type": model_type, **IDS}

    return make


def clip(out: Path) -> dict[str, Any]:
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>",
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )  # fmt: skip
    tokenizer = Tokenizer(kinds.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator([text.lower() for text in CORPUS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", 1), ("<|startoftext|>", 0), trim_offsets=False, add_prefix_space=False
    )
    named = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    save(out, tokenizer, tokenizer_class="CLIPTokenizer", bos_token="<|startoftext|>", **named)
    return {"model_type": "clip_text_model", "pad_token_id": 1}


def words(out: Path) -> dict[str, Any]:
    tokenizer = Tokenizer(kinds.WordLevel({w: i for i, w in enumerate([*BERT, *models.WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    save(out, tokenizer, tokenizer_class="PreTrainedTokenizerFast", unk_token="[UNK]", pad_token="[PAD]")
    return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}


def bare_bytes(out: Path) -> dict[str, Any]:
    """Make a tokenizer that adds nothing to a text, not even to an empty one."""
    tokenizer = trained("byte")
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    save(out, tokenizer, tokenizer_class="GPT2Tokenizer", eos_token="</s>", bos_token="</s>", unk_token="</s>")
    return {"model_type": "gpt2", "bos_token_id": 2, "eos_token_id": 2}


def added(out: Path) -> dict[str, Any]:
    """Make a tokenizer with added tokens of every kind."""
    tokenizer = bert_tokenizer(lowercase=True)
    tokenizer.add_tokens(
        [
            AddedToken("left", lstrip=True), AddedToken("right", rstrip=True), AddedToken("single", single_word=True),
            AddedToken("Raw", normalized=False), AddedToken("folded", normalized=True),
        ]
    )  # fmt: skip
    tokenizer.add_special_tokens([AddedToken("<both>", lstrip=True, rstrip=True, special=True)])
    save(out, tokenizer, tokenizer_class="PreTrainedTokenizerFast", **NAMED)
    return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}


def named_elsewhere(out: Path) -> dict[str, Any]:
    """Make a tokenizer whose special and added tokens stand in special_tokens_map.json and added_tokens.json alone."""
    said = json.loads(_trained("wordpiece"))
    tokenizer = Tokenizer(kinds.WordPiece(said["model"]["vocab"], unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    extra = ["<one>", {"content": "<two>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}]
    (out / "special_tokens_map.json").write_text(json.dumps({**NAMED, "additional_special_tokens": extra[:1]}))
    (out / "added_tokens.json").write_text(json.dumps({"<three>": tokenizer.get_vocab_size()}))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}


def named_in_config(out: Path) -> dict[str, Any]:
    """Make a tokenizer whose special tokens stand in tokenizer_config.json alone."""
    said = json.loads(_trained("byte"))
    said["added_tokens"] = []
    (out / "tokenizer.json").write_text(json.dumps(said))
    tokens = {**NAMED_ROBERTA, "additional_special_tokens": ["anna"]}
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))
    return {"model_type": "gpt2", **IDS}


def set_in_file(out: Path) -> dict[str, Any]:
    """Make a tokenizer.json that cuts and pads on the left by itself."""
    tokenizer = bert_tokenizer(lowercase=True)
    tokenizer.enable_truncation(20, direction="left")
    tokenizer.enable_padding(direction="left", pad_token="[PAD]", length=30)
    save(out, tokenizer, tokenizer_class="PreTrainedTokenizerFast", **NAMED)
    return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}


def without_settings(out: Path) -> dict[str, Any]:
    """Make a tokenizer.json with nothing beside it."""
    bert_tokenizer(lowercase=False).save(str(out / "tokenizer.json"))
    return {"model_type": "bert", "type_vocab_size": 2, "pad_token_id": 0}


BYTES = processors.ByteLevel(trim_offsets=True)
ZOO: dict[str, Maker] = {
    "bert uncased": wordpiece({"lowercase": True}, do_lower_case=True),
    "bert cased": wordpiece({"lowercase": False}, do_lower_case=False),
    "bert lowered by its file, not by its settings": wordpiece({"lowercase": True}, do_lower_case=False),
    "bert lowered by its settings, not by its file": wordpiece({"lowercase": False}, do_lower_case=True),
    "bert keeps accents": wordpiece({"lowercase": True}, do_lower_case=True, strip_accents=False),
    "bert strips accents of cased text": wordpiece({"lowercase": False}, do_lower_case=False, strip_accents=True),
    "bert leaves Chinese together": wordpiece({"lowercase": True}, tokenize_chinese_chars=False),
    "bert by its file alone": wordpiece({"lowercase": True}, "PreTrainedTokenizerFast", do_lower_case=False),
    "bert cut on the left": wordpiece({"lowercase": True}, truncation_side="left"),
    "bert without types": wordpiece({"lowercase": True}, model_input_names=["input_ids", "attention_mask"]),
    "bert with special tokens as text": wordpiece({"lowercase": True}, split_special_tokens=True),
    "bert from vocab.txt": wordpiece_slow(),
    "bert cased from vocab.txt": wordpiece_slow(do_lower_case=False),
    "bert keeps accents, from vocab.txt": wordpiece_slow(strip_accents=False),
    "distilbert": wordpiece({"lowercase": True}, "DistilBertTokenizer"),
    "electra": wordpiece({"lowercase": True}, "ElectraTokenizer"),
    "mpnet": wordpiece({"lowercase": True}, "MPNetTokenizer"),
    "roberta": byte_level(),
    "roberta with a space before": byte_level(add_prefix_space=True),
    "roberta with a space before by its file alone": byte_level(prefix_space=True, add_prefix_space=False),
    "roberta with untrimmed offsets": byte_level(trim_offsets=False),
    "roberta from merges": byte_level_slow("RobertaTokenizer", "roberta"),
    "bart": byte_level("BartTokenizer", "bart"),
    "deberta": byte_level("DebertaTokenizer", "deberta", post=_framed("<s>", 0, "</s>", 2)),
    "modernbert": byte_level("PreTrainedTokenizerFast", "modernbert", post=_framed("<s>", 0, "</s>", 2)),
    "gpt2": byte_level("GPT2Tokenizer", "gpt2", post=BYTES),
    "gpt2 with a space before": byte_level("GPT2Tokenizer", "gpt2", post=BYTES, add_prefix_space=True),
    "gpt2 from merges": byte_level_slow("GPT2Tokenizer", "gpt2"),
    "gpt2 by its file alone": byte_level("PreTrainedTokenizerFast", "gpt2", post=BYTES),
    "nothing added": bare_bytes,
    "qwen2": split_byte_level,
    "llama 3": with_start,
    "clip": clip,
    "xlm-roberta": unigram("XLMRobertaTokenizer", "xlm-roberta", type_vocab_size=1),
    "camembert": unigram("CamembertTokenizer", "camembert"),
    "albert": unigram("AlbertTokenizer", "albert", lower=True, do_lower_case=True),
    "xlnet": unigram("XLNetTokenizer", "xlnet", padding_side="left"),
    "deberta-v2": unigram("DebertaV2Tokenizer", "deberta-v2"),
    "t5": t5,
    "metaspace always": unigram("PreTrainedTokenizerFast", "xlm-roberta", {"prepend_scheme": "always"}),
    "metaspace first": unigram("PreTrainedTokenizerFast", "xlm-roberta", {"prepend_scheme": "first"}),
    "metaspace never": unigram("PreTrainedTokenizerFast", "xlm-roberta", {"prepend_scheme": "never"}),
    "metaspace unsplit": unigram("PreTrainedTokenizerFast", "xlm-roberta", {"prepend_scheme": "first", "split": False}),
    "llama": sentencepiece_like("LlamaTokenizer", "llama"),
    "gemma": sentencepiece_like("GemmaTokenizer", "gemma"),
    "llama by its file alone": sentencepiece_like("PreTrainedTokenizerFast", "llama"),
    "xlm-roberta from sentencepiece": pieces("XLMRobertaTokenizer", "xlm-roberta", "sentencepiece.bpe.model"),
    "camembert from sentencepiece": pieces("CamembertTokenizer", "camembert", "sentencepiece.bpe.model"),
    "deberta-v2 from sentencepiece": pieces("DebertaV2Tokenizer", "deberta-v2", "spm.model"),
    "xlnet from sentencepiece": pieces("XLNetTokenizer", "xlnet", "spiece.model"),
    "t5 from sentencepiece": pieces("T5Tokenizer", "t5", "spiece.model"),
    "llama from sentencepiece": pieces("LlamaTokenizer", "llama", "tokenizer.model", "bpe"),
    "words": words,
    "added tokens": added,
    "tokens named in other files": named_elsewhere,
    "tokens named in the settings": named_in_config,
    "cut and padded by its file": set_in_file,
    "no settings": without_settings,
}
"""What it is -> how its folder is made."""


def make(name: str, out: Path) -> Path:
    """Write a tokenizer of the zoo, with a config.json whose model has as many tokens as may be needed."""
    out.mkdir(parents=True)
    config = ZOO[name](out)
    (out / "config.json").write_text(json.dumps({"vocab_size": 2000, **config}))
    return out
