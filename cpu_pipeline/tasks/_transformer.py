"""How sentence-transformers cuts and lowers texts before the transformer: sentence_bert_config.json and its kin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._files import read_json

FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names of the file, by the version that wrote it; the first that says something counts."""
HINT = "save the model again with sentence-transformers"
OLD = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
"""Older names of keys."""
TASK = "feature-extraction"
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
"""How a text becomes token vectors: the model's own forward pass, its last layer."""
ALIASES = {
    "gpt2": "n_positions", "gpt-sw3": "n_positions", "codegen": "n_positions", "ctrl": "n_positions",
    "decision_transformer": "n_positions", "gpt_bigcode": "n_positions", "gptj": "n_positions",
    "openai-gpt": "n_positions", "dbrx": "max_seq_len", "rwkv": "context_length",
    "bailing_hybrid": "model_max_length", "kimi_linear": "model_max_length",
}  # fmt: skip
"""Model type -> what its config.json calls `max_position_embeddings` (`attribute_map` of transformers)."""

PLAIN: Mapping[str, frozenset[str]] = {
    "model_kwargs": frozenset({"dtype", "torch_dtype", "attn_implementation", "low_cpu_mem_usage", "use_safetensors"}),
    "processor_kwargs": frozenset({"model_max_length", "padding_side", "use_fast"}),
    "config_kwargs": frozenset({"use_cache"}),
    "processing_kwargs": frozenset({"common", "text", "image", "audio", "video", "chat_template"}),
}
"""Key -> what may stand in it: it changes no answer in float32 without padding, or it is obeyed here."""
CALL = {"max_length", "padding", "return_tensors"}
"""What `text` and `common` of processing_kwargs may set, besides a truncation that is on."""
CUTS = (True, "longest_first", "only_first")
"""Values of `truncation` that cut a single text alike."""
UNLIMITED = 10**20
"""A `model_max_length` above it stands for none. transformers.tokenization_utils_base.LARGE_INTEGER"""


@dataclass(frozen=True)
class Transformer:
    """How a text is brought to the transformer."""

    max_length: int | None = None
    """Tokens of a text that are read; None for all."""
    lower: bool = False
    """Whether a text is lowered first."""


def read(model: Path) -> Transformer:
    """Read the settings of a folder with modules.json.

    Raises:
        RecipeError: they ask for something that is not supported; says what.
    """
    name, config = _first(model)
    for problem in _problems(config):
        raise RecipeError(
            f"{name}: {problem} is not supported; write it into config.json or tokenizer_config.json where it belongs "
            f"there, or choose a model without it"
        )
    call = {**_call(config, "text"), **_call(config, "common")}
    given = (call.get("max_length"), config["processor_kwargs"].get("model_max_length"), config.get("max_seq_length"))
    limit = next((value for value in given if value is not None), None)
    if limit is not None and not _is_length(limit):
        raise RecipeError(f"{name}: the length of a text is {limit!r}, not a number from 1 on; {HINT}")
    length = by_default(model) if limit is None else _least(model, limit)
    return Transformer(length, bool(config.get("do_lower_case", False)))


def by_default(model: Path) -> int | None:
    """Return how many tokens are read where nothing but tokenizer and model limit them; None for all."""
    config = _tokens.read_config(model)
    positions = config.get(ALIASES.get(str(config.get("model_type")), "max_position_embeddings"))
    return _least(model, _tokens.settings(model).model_max_length, positions)


def _least(model: Path, *limits: Any) -> int | None:
    """Return the least of some limits, and of the positions that the model has: a longer text would be an error."""
    found = [int(limit) for limit in (*limits, _tokens.positions(model)) if _is_length(limit) and limit < UNLIMITED]
    return min(found, default=None)


def _is_length(value: Any) -> bool:
    return type(value) in (int, float) and value >= 1


def _first(model: Path) -> tuple[str, dict[str, Any]]:
    """Read the first of FILES that says something; old keys under their new names, and each with its default."""
    files = (model / name for name in FILES if (model / name).is_file())
    name, said = next(((f.name, found) for f in files if (found := read_json(f, HINT))), (FILES[0], {}))
    config = {OLD.get(key, key): value for key, value in said.items()}
    for key in PLAIN:
        value = config.get(key) or {}
        if not isinstance(value, dict):
            raise RecipeError(f"{name}: {key} must be a JSON object; {HINT}")
        config[key] = {inner: setting for inner, setting in value.items() if inner != "trust_remote_code"}
    return name, config


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Name what would change an answer, and is not obeyed here."""
    known = {*PLAIN, "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"}
    known |= {"unpad_inputs"}
    yield from (key for key, value in config.items() if key not in known and value is not None)
    for key, plain in PLAIN.items():
        yield from (f"{key}.{inner}" for inner in config[key] if inner not in plain)
    for kind in ("text", "common"):
        call = _call(config, kind)
        yield from (f"processing_kwargs.{kind}.{key}" for key in call if key not in CALL | {"truncation"})
        if call.get("truncation", True) not in CUTS:
            yield f"processing_kwargs.{kind}.truncation {call['truncation']}"
    if (task := config.get("transformer_task") or TASK) != TASK:
        yield f"transformer_task {task}"
    if (output := config.get("module_output_name") or "token_embeddings") != "token_embeddings":
        yield f"module_output_name {output}"
    modalities = config.get("modality_config")
    if modalities is not None:
        text = modalities.get("text") if isinstance(modalities, dict) else None
        if not isinstance(text, dict) or {key: text.get(key) for key in FORWARD} != FORWARD:
            yield "a modality_config in which `text` is not the model's last layer"
        elif "message" in modalities:
            yield "a modality_config with `message`, which reads every text as a message of a chat,"


def _call(config: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found = config["processing_kwargs"].get(kind)
    return found if isinstance(found, dict) else {}
