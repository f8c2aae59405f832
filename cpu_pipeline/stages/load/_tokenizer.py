"""A checkpoint's tokenizer: made fast where it is not, and checked to fit the model (never a row is tokenised here)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.repo_files import choose_tokenizer
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load._configs import read_json, write_json

FAST = "tokenizer.json"
CONFIG = "tokenizer_config.json"

SETTINGS = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
"""Files of a tokenizer that hold no vocabulary."""
SMALL = 4 << 20
"""Bytes of the largest tokenizer.json that is read before the build."""


def complete(folder: Path) -> None:
    """Make tokenizer.json from the vocabulary files when there is none, and its settings readable for everyone.

    Raises:
        RecipeError: there are no vocabulary files either.
        StageFailed: transformers cannot make one of them.
    """
    if not (folder / FAST).is_file():
        _make(folder)
    if (folder / CONFIG).is_file():
        _widen(folder / CONFIG)


def precheck(folder: Path) -> None:
    """Check what can be checked without a library: that there is a tokenizer, and that it fits the model.

    Raises:
        RecipeError, StageFailed: as `complete` and `check_fit`.
    """
    file = folder / FAST
    if not file.is_file():
        _vocabulary_files(folder)
    elif file.stat().st_size <= SMALL:
        check_fit(folder, read_json(folder / "config.json"))


def _widen(path: Path) -> None:
    """Spell what transformers 5 alone understands as version 4 does; 5 reads both, and Optimum still needs 4."""
    config = read_json(path)
    extra = config.get("extra_special_tokens")
    change: dict[str, Any] = {}
    if config.get("tokenizer_class") == "TokenizersBackend":
        change["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra, list) and "additional_special_tokens" not in config:
        change["additional_special_tokens"] = extra
    if change:
        gone = "extra_special_tokens" if "additional_special_tokens" in change else ""
        write_json(path, {**{key: value for key, value in config.items() if key != gone}, **change})


def _vocabulary_files(folder: Path) -> list[str]:
    found = [name for name in choose_tokenizer(p.name for p in folder.iterdir()) if name not in SETTINGS]
    if not found:
        raise RecipeError("the model has no tokenizer; say where one is: `tokenizer: {hub: ..., revision: ...}`")
    return found


def _make(folder: Path) -> None:
    vocabulary = _vocabulary_files(folder)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = one_line(error)
        raise StageFailed(f"{vocabulary[0]}: no tokenizer.json can be made of it: {reason}; add one yourself") from None
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        tokenizer.save_pretrained(saved)
        if not (Path(saved) / FAST).is_file():
            raise StageFailed(f"{vocabulary[0]}: this kind of tokenizer has no tokenizer.json; name another tokenizer")
        for name in (FAST, CONFIG):
            shutil.copyfile(Path(saved) / name, folder / name)
    config = read_json(folder / CONFIG)
    for key in ("name_or_path", "is_local", "local_files_only"):
        config.pop(key, None)
    write_json(folder / CONFIG, config)


def check_fit(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Check that every id the tokenizer can give has its row in the model's embeddings; return the counts as facts.

    Raises:
        RecipeError: the tokenizer is of another model; names both numbers.
        StageFailed: tokenizer.json is not a valid one.
    """
    ids = dict(_ids(read_json(folder / FAST)))
    if not ids:
        raise StageFailed(f"{FAST}: not a valid tokenizer: it has no vocabulary")
    largest = max(ids, key=lambda token: ids[token])
    size = _vocabulary(config)
    if size is None:
        return {"tokens": len(set(ids.values()))}
    if ids[largest] >= size:
        raise RecipeError(
            f"tokenizer and model do not fit: the tokenizer's {largest!r} is number {ids[largest]}, the model has "
            f"{size} embeddings (vocab_size); name the tokenizer the model was trained with"
        )
    for key in ("pad_token_id", "bos_token_id", "cls_token_id", "sep_token_id"):
        token = config.get(key)
        if isinstance(token, int) and token >= size:
            raise RecipeError(f"config.json: {key} is {token}, but vocab_size is {size}; correct it in the model")
    return {"tokens": len(set(ids.values())), "vocab_size": size}


def _vocabulary(config: dict[str, Any]) -> int | None:
    inner = config.get("text_config")
    for settings in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(settings.get("vocab_size"), int):
            return int(settings["vocab_size"])
    return None


def _ids(tokenizer: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """List token -> id of tokenizer.json: the vocabulary, added tokens, and those that the post-processor inserts."""
    try:
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, dict):
            yield from ((str(token), int(number)) for token, number in vocabulary.items())
        else:
            yield from ((str(entry[0]), number) for number, entry in enumerate(vocabulary))
        for token in tokenizer.get("added_tokens") or []:
            yield str(token["content"]), int(token["id"])
        post = tokenizer.get("post_processor") or {}
        for step in [post, *(post.get("processors") or [])]:
            for token, entry in (step.get("special_tokens") or {}).items():
                yield from ((f"{token} of the post-processor", int(number)) for number in entry["ids"])
            for name in ("cls", "sep"):
                if name in step:
                    yield f"{name} of the post-processor", int(step[name][1])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise StageFailed(f"{FAST}: not a valid tokenizer: {type(error).__name__} {error}; fetch it again") from None
