"""The lines of Python in a report that prepare a model's inputs, before those of a format that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head

TEXT = """from tokenizers import Tokenizer

text = Tokenizer.from_file("{folder}/tokenizer.json").encode("A text, and for tasks on pairs", "its second text")
inputs = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}"""
FILES = """from pathlib import Path
from {module} import {task}

[feature] = {task}().encode([{{"id": "1", "{column}": "path/of/a/file"}}], Path("{folder}"))
inputs = feature.inputs"""
SENTENCES = """from pathlib import Path
from {module} import {task}

task = {call}
pair = {{"id": "1", "sentence1": "A text", "sentence2": "A text to compare it with"}}
[feature, other] = task.encode([pair], Path("{folder}"))
inputs = feature.inputs"""


def constructed(head: Any) -> str:
    """Write the call that makes a task with its options."""
    set_ = {name: value for name, value in head if value != type(head)().__dict__[name]}
    return f"{type(head).__name__}({', '.join(f'{name}={value!r}' for name, value in set_.items())})"


def inputs(folder: str, head: Head | None) -> str:
    """Write the lines that make `inputs`, name -> value without a batch axis, for an output in `folder`."""
    if hasattr(head, "embed"):
        return SENTENCES.format(
            folder=folder, module=type(head).__module__, task=type(head).__name__, call=constructed(head)
        )
    if column := min(getattr(head, "files", ()), default=None):
        return FILES.format(folder=folder, module=type(head).__module__, task=type(head).__name__, column=column)
    return TEXT.format(folder=folder)


def embedding(folder: str, head: Head | None, vectors: str) -> str:
    """Write the line that makes a sentence's embedding of the token vectors that `vectors` writes; else nothing."""
    return f'embedding = task.embed(feature, {vectors}, Path("{folder}"))\n' if hasattr(head, "embed") else ""


def sentence_transformers(folder: str, head: Any) -> str:
    """Write how to embed texts with sentence-transformers, asked for what the task's options say."""
    limit = "" if head.max_seq_length is None else f"model.max_seq_length = {head.max_seq_length}\n"
    before = head.prompts.get("sentence1") or head.prompt
    asked = "" if before is None else f", prompt_name={before!r}"
    if isinstance(before, dict):
        asked = f", prompt={before['text']!r}"
    return f"""
import torch
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}", model_kwargs={{"dtype": torch.float32}})
{limit}embeddings = model.encode(["A text", "A text to compare it with"]{asked})
"""
