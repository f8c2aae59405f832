"""What a model's directory says about its tokens: the tokenizer's settings, the model's inputs, how many it takes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._files import read_json

TYPES = "token_type_ids"
GIVEN = ("input_ids", "attention_mask", TYPES)
"""What a tokenizer gives unless its settings say otherwise, in the order in which exported models take it."""
UNLIMITED = 10**20
"""A `model_max_length` above it stands for none. transformers.tokenization_utils_base.LARGE_INTEGER"""

POSITIONS = ("max_position_embeddings", "n_positions", "max_encoder_position_embeddings")
"""Keys of config.json that say how many tokens the model can take."""
UNPADDED = frozenset(["convbert", "fnet", "mobilebert", "nystromformer", "xlnet"])
"""Model types that padding disturbs in spite of the mask: they mix neighbours or all tokens, or read the last one."""
UNBOUNDED = frozenset(["bloom", "funnel", "longt5", "mpt", "mt5", "t5", "t5gemma", "umt5", "xlnet"])
"""Model types that know distances between tokens alone: none of `POSITIONS` limits them, even where config.json has
one."""
OFFSET = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet"}
    | {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)
"""Model types that count positions from the padding id + 1, so that they take that many tokens less."""

Side = Literal["left", "right"]


class Settings(BaseModel):
    """The keys of tokenizer_config.json that shape what a model is fed, with transformers' defaults."""

    model_config = ConfigDict(frozen=True)

    truncation_side: Side = "right"
    """Where a text that is too long is cut."""
    padding_side: Side = "right"
    """Where batches are padded in transformers. Here they are padded at the end; of a pair with a passage, `left` puts
    the passage first."""
    model_input_names: tuple[str, ...] = GIVEN
    """What the tokenizer gives."""
    model_max_length: int | None = None
    """Tokens that the tokenizer cuts at by default; None for no limit."""
    split_special_tokens: bool = False
    """Whether special tokens that a text spells out are read as any other text."""


def settings(model: Path) -> Settings:
    """Read the tokenizer's settings in a model's directory.

    Raises:
        RecipeError: a file is not JSON, or a setting is none that transformers knows.
    """
    file = model / "tokenizer_config.json"
    return _settings(file, file.stat().st_mtime_ns) if file.is_file() else Settings()


@lru_cache(maxsize=8)
def _settings(file: Path, stamp: int) -> Settings:
    said = read_json(file, "save the tokenizer again")
    longest = said.get("model_max_length", said.get("max_len"))
    limited = isinstance(longest, int | float) and 0 < longest < UNLIMITED
    found = {key: said[key] for key in Settings.model_fields if said.get(key) is not None}
    try:
        return Settings.model_validate({**found, "model_max_length": int(longest) if limited else None})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise RecipeError(f"{file.name}: {wrong['loc'][0]}: {wrong['msg']}; correct it in the model") from error


def read_config(model: Path) -> dict[str, Any]:
    """Read config.json of a model's directory.

    Raises:
        RecipeError: it is missing or not JSON.
    """
    config: dict[str, Any] = read_json(model / "config.json", "a model's directory needs one")
    return config


def input_names(model: Path) -> tuple[str, ...]:
    """Name what a text becomes for the model in a directory, in the order in which exported models take it.

    Token types are given where the tokenizer gives them. Where it does not, a model that counts its types
    (`type_vocab_size`) takes them for 0, and is given that; any other would add something for them that its training
    never saw, such as GPT-2 the embedding of token 0.
    """
    types = TYPES in settings(model).model_input_names or "type_vocab_size" in read_config(model)
    return tuple(name for name in GIVEN if name != TYPES or types)


def positions(model: Path) -> int | None:
    """Return how many tokens the model in a directory can take at most; None where its config.json does not limit it.

    tests/suites/fidelity compares it with the position embeddings of every architecture for text in transformers.
    """
    config = read_config(model)
    limit = next((config[key] for key in POSITIONS if isinstance(config.get(key), int) and config[key] > 0), None)
    kind = config.get("model_type")
    if limit is None or kind in UNBOUNDED or config.get("position_biased_input") is False:
        return None
    padding = 1 if kind == "mpnet" else int(config.get("pad_token_id") or 0)  # MPNet's is fixed in its code
    return int(limit) - padding - 1 if kind in OFFSET else int(limit)
