"""The lines of Python in a report that prepare a model's inputs, before those of a format that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head

TEXT = """from tokenizers import Tokenizer

text = Tokenizer.from_file("{folder}/tokenizer.json").encode("A text, and for tasks on pairs", "its second text")
inputs = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}"""
FILES = """from pathlib import Path
from {module} import {task}

[feature] = {task}().encode([{{"id": "1", "{column}": "path/of/a/file"}}], Path("{folder}"))
inputs = feature.inputs"""


def inputs(folder: str, head: Head | None) -> str:
    """Write the lines that make `inputs`, name -> value without a batch axis, for an output in `folder`."""
    if column := min(getattr(head, "files", ()), default=None):
        return FILES.format(folder=folder, module=type(head).__module__, task=type(head).__name__, column=column)
    return TEXT.format(folder=folder)
