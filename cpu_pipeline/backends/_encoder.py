"""What the encoders of several architectures have in common: embeddings, positions, and the heads above them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends._parts import ARCHITECTURES as ARCHITECTURES
from cpu_pipeline.backends._parts import Parts as Parts
from cpu_pipeline.backends.hf import outputs_of
from cpu_pipeline.core.errors import StageFailed

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head


HEADS = {
    "AutoModel": ("last_hidden_state",),
    "AutoModelForQuestionAnswering": ("start_logits", "end_logits"),
    "AutoModelForSequenceClassification": ("logits",),
    "AutoModelForTokenClassification": ("logits",),
}
"""Auto class -> its outputs that run here."""
POOLED = "AutoModelForSequenceClassification"
"""The head that reads the first token of each sequence alone; the others read each token by itself."""


def check(config: Any, head: Head | None) -> Parts:
    """Return the names of the parts of a model's encoder.

    Raises:
        StageFailed: its architecture, its kind of attention or the task's head is not one that runs here.
    """
    kind = str(getattr(config, "model_type", None))
    if kind not in ARCHITECTURES:
        raise StageFailed(
            f"fastpath: the model is a {kind}; encoders that run without padding are {', '.join(ARCHITECTURES)}"
        )
    for name in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if getattr(config, name, False):
            raise StageFailed(f"fastpath: config.json sets {name}: only encoders, whose tokens all see each other, run")
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise StageFailed(f"fastpath: config.json sets position_embedding_type to {positions}; only absolute is known")
    if head is not None and set(head.outputs) - set(HEADS.get(head.auto_class, ())):
        raise StageFailed(
            f"fastpath: {head.auto_class} with {', '.join(head.outputs)} is not a head that runs without padding; "
            f"those are {', '.join(HEADS)}"
        )
    return ARCHITECTURES[kind]


def positions(embeddings: Any, ids: Any) -> Any:
    """Number each token's position as the model's embeddings do: RoBERTa and its kin skip padding tokens.

    `ids` and the result are of shape (batch, sequence).
    """
    import torch

    padding = getattr(embeddings, "padding_idx", None)
    if padding is None:
        return torch.arange(ids.shape[1]).expand(ids.shape)
    real = ids.ne(padding).long()
    return real.cumsum(1) * real + padding


def embed(base: Any, ids: Any, positions: Any, segments: Any) -> Any:
    """Embed tokens of shape (rows, tokens) with the encoder's own modules; without `segments` all are the first."""
    arguments = {"input_ids": ids, "position_ids": positions}
    if hasattr(base.embeddings, "token_type_embeddings"):
        arguments["token_type_ids"] = ids.new_zeros(ids.shape) if segments is None else segments
    hidden = base.embeddings(**arguments)
    return base.embeddings_project(hidden) if hasattr(base, "embeddings_project") else hidden


def head(model: Any, outputs: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    """Take the encoder out of a model; give what is left as a function of hidden states (rows, tokens, size).

    The head's own code runs, above an encoder that returns its input.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    base = model.base_model
    if base is model:
        return lambda hidden: {"last_hidden_state": hidden}
    pooler = getattr(base, "pooler", None)

    def encoder(*_: Any, inputs_embeds: Any, **__: Any) -> Any:
        pooled = None if pooler is None else pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)

    delattr(model, model.base_model_prefix)
    setattr(model, model.base_model_prefix, encoder)
    return lambda hidden: outputs_of(model(inputs_embeds=hidden), outputs)
