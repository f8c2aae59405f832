"""A head of every architecture answers here, in padded batches, as transformers does one text at a time."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import models
import numpy as np
import pytest
import torch
import transformers
from suites.fidelity import tokenizers_zoo as zoo
from transformers import AutoTokenizer

from cpu_pipeline import tasks
from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.jsonl import ROWS, write_jsonl
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load.fidelity import LoadFidelity
from cpu_pipeline.stages.load.model import LoadModel


class Kind(NamedTuple):
    """An architecture, small."""

    family: str
    """Of transformers' class names."""
    tokenizer: str
    """Of the zoo."""
    config: dict[str, Any]


WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BERT = {**WIDE, "max_position_embeddings": 96}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 96}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}
SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96,
}  # fmt: skip
T5 = {"decoder_start_token_id": 1, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 96}
KINDS = {
    "albert": Kind("Albert", "albert", {**BERT, "embedding_size": 16}),
    "bart": Kind("Bart", "bart", SEQ2SEQ),
    "bert": Kind("Bert", "bert uncased", BERT),
    "bert fed no types": Kind("Bert", "bert without types", BERT),
    "bert by its file alone": Kind("Bert", "bert by its file alone", BERT),
    "big_bird": Kind("BigBird", "albert", {**BERT, "attention_type": "original_full"}),
    "bloom": Kind("Bloom", "gpt2 by its file alone", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "camembert": Kind("Camembert", "camembert", BERT),
    "convbert": Kind("ConvBert", "bert uncased", {**BERT, "embedding_size": 32}),
    "deberta": Kind("Deberta", "deberta", {**BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": Kind("DebertaV2", "deberta-v2", {
        **BERT, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"],
    }),
    "distilbert": Kind("DistilBert", "distilbert", DISTILBERT),
    "electra": Kind("Electra", "electra", {**BERT, "embedding_size": 16}),
    "ernie": Kind("Ernie", "bert uncased", BERT),
    "falcon": Kind("Falcon", "gpt2 by its file alone", {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    }),
    "fnet": Kind("FNet", "albert", {**BERT, "use_tpu_fourier_optimizations": False}),
    "funnel": Kind("Funnel", "bert uncased", {
        "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "num_decoder_layers": 1,
    }),
    "gemma": Kind("Gemma", "gemma", GROUPED),
    "gpt2": Kind("GPT2", "gpt2", GPT2),
    "gpt2 with nothing added": Kind("GPT2", "nothing added", GPT2),
    "gpt2 by its file alone": Kind("GPT2", "gpt2 by its file alone", GPT2),
    "gpt_neo": Kind("GPTNeo", "gpt2", {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 96,
    }),
    "gpt_neox": Kind("GPTNeoX", "gpt2 by its file alone", BERT),
    "llama": Kind("Llama", "llama 3", GROUPED),
    "llama with byte fallback": Kind("Llama", "llama", GROUPED),
    "longformer": Kind("Longformer", "roberta", {**BERT, "max_position_embeddings": 98, "attention_window": 16}),
    "mistral": Kind("Mistral", "llama by its file alone", GROUPED),
    "mobilebert": Kind("MobileBert", "bert uncased", {**BERT, "embedding_size": 16, "intra_bottleneck_size": 16}),
    "modernbert": Kind("ModernBert", "modernbert", {**BERT, "cls_token_id": 0, "sep_token_id": 2}),
    "mpnet": Kind("MPNet", "mpnet", {**BERT, "max_position_embeddings": 98}),
    "mpt": Kind("Mpt", "gpt2 by its file alone", {"d_model": 32, "n_layers": 2, "n_heads": 4}),
    "nystromformer": Kind("Nystromformer", "albert", {**BERT, "segment_means_seq_len": 96, "num_landmarks": 96}),
    "opt": Kind("OPT", "gpt2", {**BERT, "word_embed_proj_dim": 32, "ffn_dim": 64}),
    "phi": Kind("Phi", "gpt2 by its file alone", BERT),
    "qwen2": Kind("Qwen2", "qwen2", GROUPED),
    "qwen3": Kind("Qwen3", "qwen2", GROUPED),
    "rembert": Kind("RemBert", "bert uncased", {**BERT, "input_embedding_size": 16}),
    "roberta": Kind("Roberta", "roberta", {**BERT, "max_position_embeddings": 98, "type_vocab_size": 1}),
    "roberta with a space before": Kind("Roberta", "roberta with a space before", {
        **BERT, "max_position_embeddings": 98, "type_vocab_size": 1,
    }),
    "roformer": Kind("RoFormer", "bert uncased", BERT),
    "squeezebert": Kind("SqueezeBert", "bert uncased", {**BERT, "embedding_size": 32}),
    "t5": Kind("T5", "t5", T5),
    "xlm": Kind("XLM", "gpt2 by its file alone", {
        "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 96,
    }),
    "xlm-roberta": Kind("XLMRoberta", "xlm-roberta", {**BERT, "max_position_embeddings": 98, "type_vocab_size": 1}),
    "xlnet": Kind("XLNet", "xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
}  # fmt: skip
"""What it is -> how it is made."""
LABELS = [f"class {number}" for number in range(5)]
TEXT = {"text-classification": "SequenceClassification", "token-classification": "TokenClassification"}
OTHERS = "albert bert deberta-v2 distilbert electra gpt2 llama modernbert mpnet roberta xlnet".split()  # noqa: SIM905


def write(kind: str, head: str, out: Path) -> Path:
    """Write a small model of a kind, with a tokenizer of the zoo."""
    family, tokenizer, config = KINDS[kind]
    made = zoo.make(tokenizer, out)
    said = json.loads((made / "config.json").read_text())
    said = {key: value for key, value in said.items() if key not in ("model_type", "vocab_size")}
    ids = {"bos_token_id": 0, "eos_token_id": 2, **said}
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    torch.manual_seed(0)
    full = {"vocab_size": 800, **ids, **config, **({} if head.startswith("QuestionAnswering") else named)}
    model = getattr(transformers, f"{family}For{head}")(getattr(transformers, f"{family}Config")(**full))
    draw(model)
    model.save_pretrained(made)
    return made


def draw(model: Any) -> None:
    """Draw matrices anew, wide enough that every fault shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1:
                wide = 1.0 if "emb" in name or "wte" in name or "wpe" in name or "shared" in name else 0.3
                parameter.copy_(wide * torch.randn(parameter.shape, generator=generator))


def rows(task: str, seed: int = 0) -> list[dict[str, Any]]:
    made = models.rows(task, 24, seed)
    if task == "text-classification":
        rng = random.Random(seed)
        for row in made:
            row.pop("label")
            if rng.random() < 0.4:
                row["text_pair"] = " ".join(rng.choices(models.WORDS, k=rng.randint(1, 90)))
            row["text"] = rng.choice(["", "  ", "日本語 "]) + row["text"] * rng.randint(1, 12)
    return [{key: value for key, value in row.items() if key not in ("tags", "answers")} for row in made]


def load(original: Path, out: Path) -> Path:
    out.mkdir()
    inputs = {"files": Artifact("files", original, "", {})}
    LoadModel().run(inputs, out, Job(load=None, timer=None))  # type: ignore[arg-type]
    return out


def official(original: Path, given: list[dict[str, Any]], length: int) -> list[Any]:
    """Answer each row by itself, as transformers' documentation has it."""
    tokenizer = AutoTokenizer.from_pretrained(original)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(original, dtype=torch.float32).eval()
    found = []
    for row in given:
        texts = [[row[name]] for name in ("text", "text_pair") if name in row]
        encoded = tokenizer(*texts, truncation=True, max_length=length, return_tensors="pt")
        taken = {name: encoded[name] for name in encoded if name in inspect.signature(model.forward).parameters}
        with torch.inference_mode():
            found.append(model(**taken).logits[0].float().numpy())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_classifiers(kind: str, tmp_path: Path) -> None:
    original = write(kind, "SequenceClassification", tmp_path / "original")
    folder, task = load(original, tmp_path / "loaded"), tasks.get("text-classification")()
    given = rows("text-classification")
    if kind in ("bart", "t5"):  # their batches must have one number of end tokens, and pairs have more
        given = [{**row, "text_pair": row.get("text_pair", "anna")} for row in given]
    features = task.encode(given, folder)
    length = max(feature.length for feature in features)
    assert 90 < length <= 128
    answers = answer(hf.load(folder, task, 1), features, task, task.input_kinds(folder), 8)
    expected = official(original, given, length)
    for ours, theirs in zip(answers, expected, strict=True):
        assert np.abs(ours["logits"] - theirs).max() < 1e-4 * max(1.0, float(np.abs(theirs).max()))
    assert float(np.std(expected, axis=0).mean()) > 1e-3, "all rows have one answer: a fault would not show"


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "question-answering"])
@pytest.mark.parametrize("kind", OTHERS)
def test_the_check_passes_them(kind: str, task: str, tmp_path: Path) -> None:
    head = {**TEXT, "question-answering": "QuestionAnswering"}[task]
    family = KINDS[kind].family
    if task == "question-answering" and family == "XLNet":
        head = "QuestionAnsweringSimple"
    if not hasattr(transformers, f"{family}For{head}"):
        pytest.skip(f"transformers has no {family}For{head}")
    original = write(kind, head, tmp_path / "original")
    folder = load(original, tmp_path / "loaded")
    options = {"max_seq_length": 64, "doc_stride": 16} if task == "question-answering" else {}
    made = tasks.get(task)(**options)
    write_jsonl(tmp_path / ROWS, rows(task))
    inputs = {"files": Artifact("files", original, "", {}), "model": Artifact("hf", folder, "", {})}
    (tmp_path / "out").mkdir()
    job = Job(
        load=lambda artifact: hf.load(artifact.path, made, 1), timer=None, task=made,  # type: ignore[arg-type]
        data={"validation": tmp_path / ROWS},
    )  # fmt: skip
    facts = LoadFidelity().run(inputs, tmp_path / "out", job)
    assert facts.rows == {"validation": 24} and facts.inputs >= 24 and facts.answers == facts.inputs
