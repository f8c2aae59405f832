"""The rule for how many tokens a model takes holds for every architecture for text in transformers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING
from transformers.models.auto import modeling_auto

from cpu_pipeline.tasks._settings import positions

NAMES = sorted(
    {
        *modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    }
)
OTHERWISE = {"canine", "ibert", "lxmert"}
"""Model types that read characters or images, or embed positions with a class of their own."""
EMBEDDINGS = ("position_embeddings", "embed_positions", "wpe", "positions_embed")
"""Names of the modules that embed the positions of tokens."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")


def module(config: Any) -> Any:
    """Make the model without memory for its weights."""
    for name in LAYERS:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, 1)
    found = MODEL_MAPPING[type(config)]
    with torch.device("meta"):
        return (found[0] if isinstance(found, tuple) else found)(config)


def taken(model: Any, config: Any) -> int | None:
    """Count the positions that a model's embeddings have for tokens; None where it has no such embeddings."""
    found = []
    for name, part in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(part, torch.nn.Embedding) and last in EMBEDDINGS:
            if "decoder" in name and hasattr(model, "encoder"):
                continue
            skipped = getattr(part, "offset", 0) + (part.padding_idx + 1 if part.padding_idx is not None else 0)
            found.append(part.num_embeddings - skipped)
    limit = getattr(config, "max_position_embeddings", None)
    return min([*found, *([limit] if isinstance(limit, int) else [])]) if found else None


def made(name: str) -> tuple[Any, Any] | None:
    """Make a model of an architecture's defaults; None where transformers has none, or it reads no tokens."""
    try:
        config = CONFIG_MAPPING[name]()
        model = module(config)
    except (KeyError, ImportError, TypeError, AttributeError, ValueError, NotImplementedError):
        return None
    reads = "input_ids" in inspect.signature(model.forward).parameters and name not in OTHERWISE
    return (model, config) if reads else None


def test_positions(tmp_path: Path) -> None:
    wrong, compared = {}, 0
    for name in NAMES:
        if (found := made(name)) is None or (expected := taken(*found)) is None:
            continue
        compared += 1
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(found[1].to_dict(), default=str))
        if (ours := positions(folder)) != expected:
            wrong[name] = (ours, expected)
    assert wrong == {}
    assert compared >= 40, "most architectures with positions were compared"
