"""The rule for how many tokens a model takes holds for every architecture for text in transformers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.parametrize("name", NAMES)
def test_positions(name: str, tmp_path: Path) -> None:
    try:
        config = CONFIG_MAPPING[name]()
        model = module(config)
    except (KeyError, ImportError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
        pytest.skip(f"transformers makes none of its defaults: {type(error).__name__}")
    if "input_ids" not in inspect.signature(model.forward).parameters or name in OTHERWISE:
        pytest.skip("it reads something else")
    expected = taken(model, config)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    if expected is not None:
        assert positions(tmp_path) == expected
