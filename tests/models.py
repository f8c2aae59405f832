"""Make tiny real checkpoints and rows for tests: random weights from a fixed seed, real tokenizers, no network."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

TEXT = (
    "the a of in on at to and or is was has who what where when which how many red blue green old new big small river "
    "house bridge city garden teacher doctor painter captain village market tower museum forest winter summer morning "
    "anna boris clara david emma felix grace henry paris rome cairo lima oslo quito built found painted opened lost "
    "won visited left good bad fine awful lovely dull bright happy sad one two three four five six seven eight nine ten"
)
WORDS = TEXT.split()
"""What the tokenizers know whole; everything else falls apart into letters or bytes."""

HEADS = {
    "question-answering": "ForQuestionAnswering",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "sentence-similarity": "Model",
}
FAMILIES = {"bert": "Bert", "minilm": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
HIDDEN, LAYERS, ATTENTION_HEADS, POSITIONS = 32, 2, 4, 512


def make(kind: str, out: Path, task: str = "question-answering", seed: int = 0, **config: Any) -> Path:
    """Write a checkpoint of `kind` (bert, minilm, roberta, distilbert) with the head of `task` into `out`.

    `minilm` is a BERT with sentence-transformers' modules.json, 1_Pooling and 2_Normalize beside it, and so is whatever
    is made for sentence-similarity. `config` overrides fields of config.json. Equal arguments give equal files.
    """
    import transformers

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_bpe() if kind == "roberta" else _wordpiece()
    _save_tokenizer(kind, tokenizer, out)
    family = FAMILIES[kind]
    settings = getattr(transformers, f"{family}Config")(**{**_config(kind, task, tokenizer.get_vocab()), **config})
    model = getattr(transformers, family + HEADS[task])(settings)
    fill(model, seed)
    model.save_pretrained(out)
    if kind == "minilm" or task == "sentence-similarity":
        _sentence_transformers(out)
    return out


def rows(task: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make `count` rows of a task, each with an id, in the columns of the data sets that the field knows."""
    rng = random.Random(f"{task} {seed}")
    return [{"id": f"{seed}-{i}", **_ROW[task](rng)} for i in range(count)]


def write_rows(path: Path, task: str, count: int, seed: int = 0) -> Path:
    """Write `rows` as JSON lines to the file `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, sort_keys=True) + "\n" for row in rows(task, count, seed)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _sentence(rng: random.Random, low: int = 4, high: int = 12) -> list[str]:
    return [rng.choice(WORDS) for _ in range(rng.randint(low, high))]


def _question(rng: random.Random) -> dict[str, Any]:
    words = _sentence(rng, 10, 60)
    first = rng.randrange(len(words) - 3)
    answer = " ".join(words[first : first + rng.randint(1, 3)])
    start = len(" ".join([*words[:first], ""]))
    question = " ".join(_sentence(rng, 4, 9)) + "?"
    return {
        "question": question,
        "context": " ".join(words) + ".",
        "answers": {"text": [answer], "answer_start": [start]},
    }


def _labelled(rng: random.Random) -> dict[str, Any]:
    return {"text": " ".join(_sentence(rng)), "label": rng.randrange(2)}


def _tagged(rng: random.Random) -> dict[str, Any]:
    tokens = _sentence(rng)
    tags = ["O"] * len(tokens)
    for name in ("PER", "LOC"):
        place = rng.randrange(len(tokens) - 1)
        tags[place : place + 2] = [f"B-{name}", f"I-{name}"]
    return {"tokens": tokens, "tags": tags}


def _similar(rng: random.Random) -> dict[str, Any]:
    first = _sentence(rng)
    second = [word if rng.random() < 0.5 else rng.choice(WORDS) for word in first]
    same = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    return {"sentence1": " ".join(first), "sentence2": " ".join(second), "score": round(5 * same, 2)}


_ROW = {
    "question-answering": _question,
    "text-classification": _labelled,
    "token-classification": _tagged,
    "sentence-similarity": _similar,
}


def _config(kind: str, task: str, vocabulary: dict[str, int]) -> dict[str, Any]:
    said: dict[str, Any] = {"vocab_size": len(vocabulary), "initializer_range": 0.2}
    if kind == "distilbert":
        said |= {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": ATTENTION_HEADS, "hidden_dim": 2 * HIDDEN}
        said |= {"max_position_embeddings": POSITIONS}
    else:
        said |= {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": ATTENTION_HEADS}
        said |= {"intermediate_size": 2 * HIDDEN}
        roberta = {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
        roberta |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        said |= roberta if kind == "roberta" else {"max_position_embeddings": POSITIONS, "type_vocab_size": 2}
    if kind != "roberta":
        said |= {"pad_token_id": vocabulary["[PAD]"]}
    if task == "text-classification":
        said |= {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    if task == "token-classification":
        said |= {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    return said


def fill(model: Any, seed: int) -> None:
    """Draw every parameter anew, wide enough that answers differ clearly and no bias or scale is trivial."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    # Wider layers sum more terms: without this they would blow rounding errors up from layer to layer.
    width = 0.25 * (HIDDEN / model.config.hidden_size) ** 0.5
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * drawn)
            else:
                parameter.copy_((0.1 if name.endswith("bias") else width) * drawn)


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = list(dict.fromkeys([*special, *letters, *("##" + c for c in letters), *WORDS]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.add_special_tokens(special)
    return tokenizer


def _byte_bpe() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + " ".join(WORDS)], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _save_tokenizer(kind: str, tokenizer: Any, out: Path) -> None:
    tokenizer.save(str(out / "tokenizer.json"))
    said: dict[str, Any] = {"model_max_length": POSITIONS}
    if kind == "roberta":
        said |= {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>"}
        said |= {"sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    else:
        said |= {"tokenizer_class": "DistilBertTokenizer" if kind == "distilbert" else "BertTokenizer"}
        said |= {"do_lower_case": True, "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
        said |= {"pad_token": "[PAD]", "mask_token": "[MASK]"}
    _write_json(out / "tokenizer_config.json", said)


def _sentence_transformers(out: Path) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    _write_json(out / "modules.json", modules)
    _write_json(out / "sentence_bert_config.json", {"max_seq_length": POSITIONS // 2, "do_lower_case": False})
    (out / "1_Pooling").mkdir(exist_ok=True)
    modes = {"cls_token": False, "mean_tokens": True, "max_tokens": False, "mean_sqrt_len_tokens": False}
    pooling = {f"pooling_mode_{mode}": on for mode, on in modes.items()}
    _write_json(out / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **pooling})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
