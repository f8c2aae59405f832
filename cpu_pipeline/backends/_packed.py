"""Run an encoder over the real tokens of a batch alone: nothing is computed for padding.

The idea is that of ByteTransformer, which does it on GPUs (Zhai et al. 2023, https://arxiv.org/abs/2210.03052).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _encoder

if TYPE_CHECKING:
    Group = tuple[int, int]
    """(sequences, tokens in each): neighbours of equal length, which attend in one call."""


@dataclass(frozen=True)
class Layout:
    """The positions of a batch's tokens once they are packed, longest sequences first."""

    rows: int
    width: int
    groups: tuple[Group, ...]
    places: Any
    """Position of each packed token in the flat padded batch; None when there is no padding, and nothing moves."""
    first: Any
    """Packed position of the first token of each sequence, in the order of the batch."""

    @classmethod
    def of(cls, lengths: Sequence[int], width: int) -> Layout:
        """Lay out sequences of these lengths (each at least 1) that are padded to `width` on the right."""
        import torch

        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        groups = tuple((len(list(same)), length) for length, same in groupby(lengths[row] for row in order))
        starts = torch.empty(len(lengths), dtype=torch.int64)
        starts[order] = torch.tensor([0, *accumulate(lengths[row] for row in order)][:-1])
        places = None
        if min(lengths) < width:
            places = torch.cat([torch.arange(row * width, row * width + lengths[row]) for row in order])
        return cls(len(lengths), width, groups, places, starts)

    def pack(self, padded: Any) -> Any:
        """Turn (batch, sequence, ...) into (tokens, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self.places is None else flat[self.places]

    def unpack(self, packed: Any) -> Any:
        """Turn (tokens, ...) into (batch, sequence, ...), with zeros for padding."""
        shape = (self.rows, self.width, *packed.shape[1:])
        if self.places is None:
            return packed.view(shape)
        padded = packed.new_zeros((self.rows * self.width, *packed.shape[1:]))
        padded[self.places] = packed
        return padded.view(shape)


class Packed:
    """An encoder with its head, fed with packed tokens."""

    def __init__(self, model: Any, parts: _encoder.Parts, outputs: tuple[str, ...], per_token: bool) -> None:
        base = model.base_model
        size = base.config.hidden_size // base.config.num_attention_heads
        self._base = base
        self._layers = [Layer(layer, parts, size) for layer in base.get_submodule(parts.layers)]
        self._bias = getattr(base.get_submodule(parts.layers.rpartition(".")[0]), "compute_position_bias", None)
        self._head = _encoder.head(model, outputs)
        self._per_token = per_token

    def __call__(self, ids: Any, lengths: Sequence[int], segments: Any) -> dict[str, Any]:
        """Run one batch, padded on the right; `segments` is None where the model knows none."""
        layout = Layout.of(lengths, ids.shape[1])
        positions = layout.pack(_encoder.positions(self._base.embeddings, ids))[None]
        segments = None if segments is None else layout.pack(segments)[None]
        hidden = _encoder.embed(self._base, layout.pack(ids)[None], positions, segments)[0]
        biases = self._biases(hidden, layout.groups)
        for layer in self._layers:
            hidden = layer(hidden, layout.groups, biases)
        if not self._per_token:
            return self._head(hidden[layout.first][:, None])
        return {name: layout.unpack(value[0]) for name, value in self._head(hidden[None]).items()}

    def _biases(self, hidden: Any, groups: Sequence[Group]) -> list[Any]:
        """Give what each group adds to its attention scores: nothing, or the relative positions of MPNet."""
        if self._bias is None:
            return [None] * len(groups)
        longest = groups[0][1]
        whole = self._bias(hidden.new_empty((1, longest, 0)))
        # Relative positions are the same wherever a sequence starts: a corner of the longest one's is a shorter one's.
        return [whole[:, :, :length, :length].expand(count, -1, -1, -1) for count, length in groups]


class Layer:
    """One encoder layer over packed tokens: query, key and value in one product, norms after the residuals."""

    def __init__(self, layer: Any, parts: _encoder.Parts, size: int) -> None:
        # Of the layer itself: one that was pruned has fewer than config.json says.
        self._heads = layer.get_submodule(parts.query).out_features // size
        self._qkv = fused([layer.get_submodule(name) for name in (parts.query, parts.key, parts.value)])
        self._out = layer.get_submodule(parts.out)
        self._attention_norm = layer.get_submodule(parts.attention_norm)
        self._up = layer.get_submodule(parts.up)
        self._activation = layer.get_submodule(parts.activation)
        self._down = layer.get_submodule(parts.down)
        self._norm = layer.get_submodule(parts.norm)

    def __call__(self, hidden: Any, groups: Sequence[Group], biases: Sequence[Any]) -> Any:
        """Run on hidden states of shape (tokens, size); groups of sequences lie one after another."""
        mixed = self._out(self._attend(self._qkv(hidden), groups, biases))
        hidden = self._attention_norm(mixed.add_(hidden))
        return self._norm(self._down(self._activation(self._up(hidden))).add_(hidden))

    def _attend(self, qkv: Any, groups: Sequence[Group], biases: Sequence[Any]) -> Any:
        """Let the tokens of each sequence attend to each other.

        Args:
            qkv: queries, keys and values of all tokens side by side: (tokens, 3 * size).
            groups: sequences of equal length, in the order of the tokens.
            biases: for each group nothing, or what is added to its scores: (sequences, heads, length, length).

        Returns:
            The attended values: (tokens, size), of the type of `qkv`.
        """
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        done, start = [], 0
        for (count, length), bias in zip(groups, biases, strict=True):
            block = qkv[start : start + count * length]
            start += len(block)
            query, key, value = block.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias)
            done.append(mixed.transpose(1, 2).reshape(len(block), -1))
        return done[0] if len(done) == 1 else torch.cat(done)


def fused(layers: Sequence[Any]) -> Any:
    """Make one linear layer of several with the same input; their outputs lie side by side."""
    import torch

    first = layers[0]
    outputs = sum(layer.out_features for layer in layers)
    one = torch.nn.Linear(first.in_features, outputs, dtype=first.weight.dtype, device="meta")
    one.weight = torch.nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    one.bias = torch.nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return one
