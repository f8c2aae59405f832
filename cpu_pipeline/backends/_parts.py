"""The names of an encoder's parts in several architectures, as transformers calls its modules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """The dotted names of a layer's modules, as transformers calls them."""

    layers: str = "encoder.layer"
    """From the encoder; all others are from a layer."""
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    activation: str = "intermediate.intermediate_act_fn"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


BERT = Parts()
DISTILBERT = Parts(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    activation="ffn.activation",
    down="ffn.lin2",
    norm="output_layer_norm",
)
MPNET = Parts(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
ARCHITECTURES = {
    "bert": BERT,
    "camembert": BERT,
    "distilbert": DISTILBERT,
    "electra": BERT,
    "mpnet": MPNET,
    "roberta": BERT,
    "xlm-roberta": BERT,
}
"""config.json's model_type -> the names of the parts of its encoder."""
