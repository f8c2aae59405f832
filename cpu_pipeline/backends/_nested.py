"""Run an encoder through torch.nn.TransformerEncoderLayer's fast path, on nested tensors where there is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpu_pipeline.backends import _encoder
from cpu_pipeline.backends._packed import fused
from cpu_pipeline.core.errors import StageFailed

ACTIVATIONS = ("gelu", "relu")
"""What torch's fused kernel knows."""


def check(config: Any) -> None:
    """Refuse what torch would run without its fast path.

    Raises:
        StageFailed: says which part of the model the fused kernel does not know.
    """
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    reason = None
    if config.model_type == "mpnet":
        reason = "it can't add MPNet's relative positions"
    elif config.num_attention_heads % 2:
        reason = f"it wants an even number of attention heads, and the model has {config.num_attention_heads}"
    elif activation not in ACTIVATIONS:
        reason = f"it knows {' and '.join(ACTIVATIONS)}, and the model uses {activation}"
    if reason:
        raise StageFailed(f"fastpath: torch's nested fast path does not run this model: {reason}; use `packed`")


class Nested:
    """An encoder with its head; torch packs the tokens into a nested tensor."""

    def __init__(self, model: Any, parts: _encoder.Parts, outputs: tuple[str, ...], per_token: bool) -> None:
        base = model.base_model
        self._base = base
        layers = [_layer(layer, parts, base.config) for layer in base.get_submodule(parts.layers)]
        self._encoder = _stack(layers)
        self._head = _encoder.head(model, outputs)
        self._per_token = per_token

    def __call__(self, ids: Any, lengths: Sequence[int], segments: Any) -> dict[str, Any]:
        """Run one batch, padded on the right; `segments` is None where the model knows none."""
        import torch

        padding = torch.arange(ids.shape[1]) >= torch.tensor(lengths)[:, None]
        hidden = _encoder.embed(self._base, ids, _encoder.positions(self._base.embeddings, ids), segments)
        hidden = self._encoder(hidden, src_key_padding_mask=padding if padding.any() else None)
        if not self._per_token:
            return self._head(hidden[:, :1])
        return {name: _blank(value, padding) for name, value in self._head(hidden).items()}


def _blank(value: Any, padding: Any) -> Any:
    return value.masked_fill(padding.view(*padding.shape, *[1] * (value.dim() - 2)), 0)


def _stack(layers: list[Any]) -> Any:
    """Stack existing layers: torch's own constructor would make copies of one of them."""
    import torch

    stack = torch.nn.TransformerEncoder(layers[0], num_layers=1, enable_nested_tensor=True, mask_check=False)
    stack.layers = torch.nn.ModuleList(layers)
    stack.num_layers = len(layers)
    return stack.eval()


def _layer(layer: Any, parts: _encoder.Parts, config: Any) -> Any:
    """Copy one layer's weights into torch's class."""
    import torch

    up, norm = layer.get_submodule(parts.up), layer.get_submodule(parts.norm)
    if layer.get_submodule(parts.query).out_features != up.in_features:
        raise StageFailed(
            "fastpath: torch's nested fast path does not run layers without some of their heads; use `packed`"
        )
    qkv = fused([layer.get_submodule(name) for name in (parts.query, parts.key, parts.value)])
    activation = getattr(config, "hidden_act", None) or config.activation
    built = torch.nn.TransformerEncoderLayer(
        up.in_features,
        config.num_attention_heads,
        up.out_features,
        activation=activation,
        layer_norm_eps=norm.eps,
        batch_first=True,
        dtype=up.weight.dtype,
    )
    built.self_attn.in_proj_weight, built.self_attn.in_proj_bias = qkv.weight, qkv.bias
    built.self_attn.out_proj.weight = layer.get_submodule(parts.out).weight
    built.self_attn.out_proj.bias = layer.get_submodule(parts.out).bias
    built.linear1, built.linear2 = up, layer.get_submodule(parts.down)
    built.norm1, built.norm2 = layer.get_submodule(parts.attention_norm), norm
    return built.eval().requires_grad_(False)
