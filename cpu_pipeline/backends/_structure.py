"""Checkpoints whose layers have widths of their own, which config.json cannot say: structure.json beside it does.

    {"layers": [{"heads": 7, "neurons": 1024}, ...]}

A head keeps its size (of config.json, `hidden_size` by `num_attention_heads`): queries have heads times size rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _parts
from cpu_pipeline.core.errors import StageFailed

if TYPE_CHECKING:
    from cpu_pipeline.backends._parts import Parts

FILE = "structure.json"
WEIGHTS = "model.safetensors"
ARCHITECTURES = frozenset(_parts.ARCHITECTURES) - {"mpnet"}
"""`model_type`s whose layers can have widths of their own; MPNet's relative positions belong to heads of all layers."""


@dataclass(frozen=True)
class Width:
    """How wide one layer is."""

    heads: int
    neurons: int


def read(path: Path) -> list[Width] | None:
    """Read the widths of a checkpoint's layers; None where config.json says them.

    Raises:
        StageFailed: the file is not valid.
    """
    file = path / FILE
    if not file.is_file():
        return None
    try:
        layers = json.loads(file.read_text(encoding="utf-8"))["layers"]
        found = [Width(int(layer["heads"]), int(layer["neurons"])) for layer in layers]
    except (ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"{path}: {FILE} is not valid: {error!r}; prune the model again") from error
    if not found or any(width.heads < 1 or width.neurons < 1 for width in found):
        raise StageFailed(f"{path}: {FILE}: every layer needs a head and a neuron at least; prune the model again")
    return found


def write(out: Path, widths: Sequence[Width]) -> None:
    """Write the widths beside config.json."""
    layers = [{"heads": width.heads, "neurons": width.neurons} for width in widths]
    (out / FILE).write_text(json.dumps({"layers": layers}, indent=1) + "\n", encoding="utf-8")


def parts_of(model: Any) -> Parts:
    """Return the names of the parts of an encoder whose layers can have widths of their own.

    Raises:
        StageFailed: the architecture is another.
    """
    kind = str(model.config.model_type)
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise StageFailed(f"the model is a {kind}; heads and neurons can be taken out of {known}")
    return _parts.ARCHITECTURES[kind]


def layers_of(model: Any) -> list[Any]:
    """List the layers of an encoder, with or without a head above it."""
    return list(model.base_model.get_submodule(parts_of(model).layers))


def head_size(model: Any) -> int:
    """Return the numbers of one attention head."""
    return int(model.config.hidden_size) // int(model.config.num_attention_heads)


def widths_of(model: Any) -> list[Width]:
    """Read how wide each layer is."""
    parts, size = parts_of(model), head_size(model)
    return [
        Width(
            layer.get_submodule(parts.query).out_features // size,
            layer.get_submodule(parts.up).out_features,
        )
        for layer in layers_of(model)
    ]


def cut(model: Any, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]]) -> None:
    """Keep the named heads and neurons of each layer, in ascending order, in place."""
    import torch

    parts, size = parts_of(model), head_size(model)
    for layer, own_heads, own_neurons in zip(layers_of(model), heads, neurons, strict=True):
        rows = (torch.tensor(sorted(own_heads))[:, None] * size + torch.arange(size)).flatten()
        for name in (parts.query, parts.key, parts.value):
            _keep(layer.get_submodule(name), rows, 0)
        _keep(layer.get_submodule(parts.out), rows, 1)
        kept = torch.tensor(sorted(own_neurons))
        _keep(layer.get_submodule(parts.up), kept, 0)
        _keep(layer.get_submodule(parts.down), kept, 1)


def _keep(linear: Any, kept: Any, axis: int) -> None:
    """Keep some outputs (axis 0) or inputs (axis 1) of a linear layer."""
    import torch

    weight = linear.weight.detach().index_select(axis, kept).clone()
    linear.weight = torch.nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    if axis == 0:
        if linear.bias is not None:
            bias = linear.bias.detach().index_select(0, kept).clone()
            linear.bias = torch.nn.Parameter(bias, requires_grad=linear.bias.requires_grad)
        linear.out_features = len(kept)
    else:
        linear.in_features = len(kept)


def load(path: Path, auto_class: str, attention: str) -> tuple[Any, dict[str, Any]]:
    """Make the module that a checkpoint with structure.json describes, with its weights.

    Returns:
        The module, and what transformers' `output_loading_info` would say.

    Raises:
        StageFailed: structure.json does not fit config.json, or there are no weights.
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    widths = read(path) or []
    if not (path / WEIGHTS).is_file():
        raise StageFailed(f"{path}: {FILE}, but no {WEIGHTS} beside it; bring both")
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    model = getattr(transformers, auto_class).from_config(config, attn_implementation=attention, dtype=torch.float32)
    now = widths_of(model)
    fits = len(now) == len(widths) and all(w.heads <= n.heads for w, n in zip(widths, now, strict=True))
    if not fits:
        raise StageFailed(
            f"{path}: {FILE} does not fit config.json: other layers, or more heads; prune the model again"
        )
    # Weights come from the file: which rows stand here until then does not matter.
    _resize(model, widths)
    stored = _named(load_file(path / WEIGHTS), model)
    own = model.state_dict()
    wrong = [name for name, value in stored.items() if name in own and own[name].shape != value.shape]
    found = model.load_state_dict({n: v for n, v in stored.items() if n not in wrong}, strict=False)
    return model, {
        "missing_keys": set(found.missing_keys) - set(wrong),
        "unexpected_keys": set(found.unexpected_keys),
        "mismatched_keys": {(name, tuple(stored[name].shape), tuple(own[name].shape)) for name in wrong},
    }


def _resize(model: Any, widths: Sequence[Width]) -> None:
    import torch

    parts, size = parts_of(model), head_size(model)
    for layer, width in zip(layers_of(model), widths, strict=True):
        for name in (parts.query, parts.key, parts.value, parts.out, parts.up, parts.down):
            old = layer.get_submodule(name)
            wide = width.neurons if name in (parts.up, parts.down) else width.heads * size
            inward = name in (parts.out, parts.down)
            shape = (wide, old.out_features) if inward else (old.in_features, wide)
            parent, _, last = name.rpartition(".")
            setattr(layer.get_submodule(parent), last, torch.nn.Linear(*shape, bias=old.bias is not None))


def _named(stored: dict[str, Any], model: Any) -> dict[str, Any]:
    """Give weights the names that they have in a model with another head, or none."""
    prefix = f"{model.base_model_prefix}."
    if model.base_model is model:
        return {name.removeprefix(prefix): value for name, value in stored.items()}
    if any(name.startswith(prefix) for name in stored):
        return stored
    return {prefix + name: value for name, value in stored.items()}
