"""Tiny transformers of the kinds that sentence-transformers' models are made of, by transformers alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import models

SIZE = 32


def _decoder(out: Path, kind: str) -> None:
    """Write a GPT-2 or a Qwen3: a byte-level tokenizer without special tokens, which Qwen3's pads on the left."""
    import transformers

    tokenizer = models._byte_bpe()
    tokenizer.post_processor = None
    size = tokenizer.get_vocab_size()
    ids = {"bos_token_id": 0, "eos_token_id": 2}
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=size, n_embd=SIZE, n_layer=2, n_head=4, n_positions=128, **ids)
    else:
        config = transformers.Qwen3Config(
            vocab_size=size, hidden_size=SIZE, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, intermediate_size=64, max_position_embeddings=256, **ids,
        )  # fmt: skip
    _save(out, transformers.AutoModel.from_config(config), tokenizer, pad_token="<pad>", eos_token="</s>",
          padding_side="left" if kind == "qwen3" else "right")  # fmt: skip


def _t5(out: Path, kind: str) -> None:
    """Write a T5 with its decoder, as most are: sentence-transformers loads the encoder alone."""
    import transformers
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as kinds

    pieces = [
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *"abcdefghijklmnopqrstuvwxyz.,:;?!",
        *("▁" + word for word in models.WORDS),
    ]
    tokenizer = Tokenizer(kinds.Unigram([(piece, -float(len(piece) < 3) * 4 - 1) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = transformers.T5Config(
        vocab_size=len(pieces), d_model=SIZE, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    _save(out, transformers.T5Model(config), tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _save(out: Path, model: Any, tokenizer: Any, **special: Any) -> None:
    import transformers

    models.fill(model, 0)
    model.save_pretrained(out)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(out)


def _encoder(out: Path, kind: str) -> None:
    models.make(kind, out, "sentence-similarity")
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (out / name).unlink()
    (out / "1_Pooling").rmdir()


KINDS: Mapping[str, Callable[[Path, str], None]] = {
    "bert": _encoder, "roberta": _encoder, "distilbert": _encoder, "gpt2": _decoder, "qwen3": _decoder, "t5": _t5,
}  # fmt: skip


@cache
def body(kind: str) -> Path:
    """Make the transformer of a kind, once for all tests of the process; without any file of sentence-transformers."""
    out = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    KINDS[kind](out, kind)
    return out
