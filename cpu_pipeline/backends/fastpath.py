"""Run encoder checkpoints with torch on the real tokens of each batch alone, in float32 or bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _encoder, _usage, hf
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import CARD, Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.core.model_io import Arrays, Head

PACKAGES = ("torch", "transformers", "safetensors")
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32", "bfloat16")
ARCHITECTURES = frozenset(_encoder.ARCHITECTURES)
ONLY = True
STATUS = "ours, on torch; BetterTransformer, its forerunner, left every library in 2025"
FORMAT = "fastpath"
MODEL = "model.safetensors"
IMPLEMENTATIONS = ("packed", "nested")
DTYPES = ("float32", "bfloat16")


def load(path: Path, head: Head | None, threads: int) -> PaddingFree:
    """Open the artifact at `path` as its card sets; 0 threads leaves torch's own choice.

    Raises:
        StageFailed: it is not a valid checkpoint, or not one that runs without padding.
        BackendMissing: torch or transformers is not installed, or this CPU lacks an instruction set it needs.
    """
    card = Card.read(path, FORMAT)
    implementation, dtype = card.runtime.get("implementation"), card.runtime.get("dtype")
    if card.format != FORMAT or implementation not in IMPLEMENTATIONS or dtype not in DTYPES:
        raise StageFailed(
            f"{path}: {CARD} is missing or not one of {FORMAT}: it must name an implementation "
            f"({' or '.join(IMPLEMENTATIONS)}) and a dtype ({' or '.join(DTYPES)}); build it with compile.fastpath"
        )
    if lacking := host.missing(card.needs):
        raise BackendMissing(
            f"{path}: built for {', '.join(lacking)}, which this CPU lacks; build it again on this machine"
        )
    model = hf.checkpoint(path, head)
    import torch

    if threads > 0:
        torch.set_num_threads(threads)
    return PaddingFree(model, head, implementation, dtype)


def check(config: Any, head: Head | None, implementation: str) -> _encoder.Parts:
    """Return the names of the parts of a model's encoder.

    Raises:
        StageFailed: the model or the task's head does not run without padding.
    """
    from cpu_pipeline.backends import _nested

    parts = _encoder.check(config, head)
    if implementation == "nested":
        _nested.check(config)
    return parts


class PaddingFree:
    """A padding-free model called with named numpy arrays, padded on the right."""

    def __init__(self, model: Any, head: Head | None, implementation: str = "packed", dtype: str = "float32") -> None:
        """Rebuild what `hf.checkpoint` gave around its own modules; the model is used up.

        Raises:
            StageFailed: its architecture or head is not one that runs without padding.
        """
        import torch

        from cpu_pipeline.backends._nested import Nested
        from cpu_pipeline.backends._packed import Packed

        parts = check(model.config, head, implementation)
        self.inputs = hf.inputs_of(model)
        self.outputs = head.outputs if head else _encoder.HEADS["AutoModel"]
        per_token = head is None or head.auto_class != _encoder.POOLED
        model = model.to(getattr(torch, dtype))
        with torch.inference_mode():
            kind = Nested if implementation == "nested" else Packed
            self._run: Packed | Nested = kind(model, parts, self.outputs, per_token)

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch; outputs at padded positions are zero.

        Raises:
            StageFailed: padding is not all on the right, a sequence is empty, or tokens or positions are out of range.
        """
        import torch

        lengths = real_tokens(arrays["attention_mask"])
        ids = torch.from_numpy(arrays["input_ids"])
        segments = torch.from_numpy(arrays["token_type_ids"]) if "token_type_ids" in self.inputs else None
        try:
            with torch.inference_mode():
                answer = self._run(ids, lengths, segments)
        except IndexError as error:
            shape = "x".join(str(size) for size in ids.shape)
            raise StageFailed(
                f"the model does not run on a batch of {shape} tokens: it is longer than the model's positions, or has "
                f"a token that its vocabulary lacks ({error})"
            ) from error
        return {name: value.float().numpy() for name, value in answer.items()}


def real_tokens(mask: np.ndarray[Any, Any]) -> list[int]:
    """Count the real tokens of each sequence of a mask of ones and then zeros, of shape (batch, sequence).

    Raises:
        StageFailed: a sequence has no token, or padding before one.
    """
    import numpy as np

    lengths = mask.sum(axis=1)
    if not mask.size or not lengths.all():
        raise StageFailed("a batch, or a sequence in it, has no real token: nothing to answer")
    if (mask != (np.arange(mask.shape[1]) < lengths[:, None])).any():
        raise StageFailed("attention_mask is not ones and then zeros in each sequence: pad on the right")
    return [int(length) for length in lengths]


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the model with this package; the files are a checkpoint that transformers loads as well."""
    if hasattr(head, "embed"):
        return f"""
{_usage.inputs(folder, head)}
import numpy as np
from cpu_pipeline.backends import fastpath

session = fastpath.load(Path("{folder}"), task, threads=0)
outputs = session({{name: np.array([inputs[name]]) for name in session.inputs}})
{_usage.embedding(folder, head, 'outputs["last_hidden_state"][0]')}"""
    constructed = f"{type(head).__name__}()" if head else "None"
    imported = f"from {type(head).__module__} import {type(head).__name__}\n" if head else ""
    return f"""
from pathlib import Path
from cpu_pipeline.backends import fastpath
{imported}from transformers import AutoTokenizer

session = fastpath.load(Path("{folder}"), {constructed}, threads=0)
tokenizer = AutoTokenizer.from_pretrained("{folder}", padding_side="right")
texts = ["A text", "Another text, which is longer"]
inputs = tokenizer(texts, padding=True, return_tensors="np", return_token_type_ids=True)
outputs = session({{name: inputs[name] for name in session.inputs}})
"""
