"""A checkpoint's tokenizer: made to encode as transformers' own does, and checked to fit the model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.repo_files import choose_tokenizer, is_tokenizer
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load import _encodings, _growth
from cpu_pipeline.stages.load._autotokenizer import CONFIG, FAST, known, load_for_words, load_official, takes_types
from cpu_pipeline.stages.load._configs import read_json, write_json
from cpu_pipeline.stages.load._essence import essence
from cpu_pipeline.tasks._settings import TYPES, settings

SETTINGS = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
"""Files of a tokenizer that hold no vocabulary."""
SMALL = 4 << 20
"""Bytes of the largest tokenizer.json that is read before the build."""


def complete(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Make tokenizer.json encode as transformers' AutoTokenizer does of all files, and name the settings that matter.

    Files that do so already keep their bytes.

    Args:
        folder: the model's directory.
        config: its config.json.

    Returns:
        What `check_fit` counts.

    Raises:
        RecipeError: there are no vocabulary files, they are of another model, or the result encodes otherwise than
            AutoTokenizer.
        StageFailed: transformers cannot load them, or cannot make a tokenizer.json of them.
        BackendMissing: loading them needs a package that is not installed.
    """
    fast = (folder / FAST).is_file()
    vocabulary = _vocabulary_files(folder)
    before = read_json(folder / FAST) if fast else {}
    if fast:
        _growth.check(before)
        check_fit(before, config)
    official = load_official(folder)
    words = load_for_words(folder, official)
    if not fast:
        _make(folder, official, vocabulary[0])
    elif official.is_fast:
        _agree(folder / FAST, official.backend_tokenizer)
    if (folder / CONFIG).is_file():
        _widen(folder / CONFIG)
    _name_settings(folder, official)
    settle_padding(folder, official)
    _encodings.check(folder, official, words)
    # A class of transformers has special tokens of its own, which a vocabulary without them never gives.
    spare = set(official.all_special_tokens) - (ids_of(before).keys() if fast else set())
    return check_fit(read_json(folder / FAST), config, spare)


def _agree(file: Path, official: Any) -> None:
    """Write the official tokenizer's tokenizer.json where the one that is there would encode otherwise."""
    from tokenizers import Tokenizer

    try:
        there = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise StageFailed(
            f"{file.name}: cannot be loaded: {one_line(error)}; save it again with transformers"
        ) from None
    if getattr(official.model, "dropout", None):
        raise RecipeError(
            f"{file.name}: its BPE has dropout, so that it encodes one text differently each time; set `dropout` to "
            "null in the file"
        )
    if essence(there) == essence(official):
        return
    written = Tokenizer.from_str(official.to_str())
    written.no_truncation()
    written.no_padding()
    written.save(str(file))


def _name_settings(folder: Path, official: Any) -> None:
    """Write down each setting that only transformers' class of this tokenizer knows."""
    found = settings(folder)
    wanted = {key: getattr(official, key) for key in ("truncation_side", "padding_side")}
    wanted["split_special_tokens"] = bool(getattr(official, "split_special_tokens", False))
    change = {key: value for key, value in wanted.items() if getattr(found, key) != value}
    if TYPES not in official.model_input_names and takes_types(folder):
        if TYPES in found.model_input_names:
            change["model_input_names"] = list(official.model_input_names)
        if "type_vocab_size" not in read_json(folder / "config.json"):
            # What was built of such a model before it was fed without types must not be taken for its own.
            change["return_token_type_ids"] = False
    elif TYPES in official.model_input_names and TYPES not in found.model_input_names:
        change["model_input_names"] = list(official.model_input_names)
    if change:
        said = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        write_json(folder / CONFIG, {**said, **change})


def settle_padding(folder: Path, official: Any) -> None:
    """Name the padding token in the config.json of a classifier that needs one and has none.

    A decoder's classifier reads the last token that is not padding. transformers runs it on single texts without a
    padding token; in batches it needs one: the tokenizer's, or else its end token, as its documentation advises.

    Raises:
        RecipeError: the tokenizer has neither.
    """
    from transformers import AutoConfig

    said = read_json(folder / "config.json")
    first = (said.get("architectures") or [""])[0]
    if not str(first).endswith("ForSequenceClassification") or not known(folder):
        return
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    if getattr(config.get_text_config(), "pad_token_id", None) is not None:
        return
    number = official.pad_token_id if official.pad_token_id is not None else official.eos_token_id
    if number is None:
        raise RecipeError(
            "config.json names no pad_token_id, and the tokenizer has neither a padding nor an end token: a classifier "
            "on batches needs one; add pad_token_id to the model's config.json"
        )
    write_json(folder / "config.json", {**said, "pad_token_id": number})


def compare(folder: Path) -> None:
    """Compare the encoding of a model's folder as a build would read it with AutoTokenizer's, without touching it.

    It imports transformers, which takes seconds.

    Args:
        folder: a local folder with config.json and a tokenizer.

    Raises:
        RecipeError: they differ; names the text, what differs, and the setting.
        StageFailed: as `complete`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for path in folder.iterdir():
            if path.name == "config.json" or is_tokenizer(path.name):
                shutil.copyfile(path, copy / path.name)
        complete(copy, read_json(copy / "config.json"))


def precheck(folder: Path) -> None:
    """Check what can be checked without a library: that there is a tokenizer, and that it fits the model.

    Raises:
        RecipeError, StageFailed: as `complete` and `check_fit`.
    """
    file = folder / FAST
    if not file.is_file():
        _vocabulary_files(folder)
    elif file.stat().st_size <= SMALL:
        _growth.check(read_json(file))
        check_fit(read_json(file), read_json(folder / "config.json"))


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


def _make(folder: Path, official: Any, vocabulary: str) -> None:
    """Save the tokenizer.json, with its settings, that transformers makes of the vocabulary."""
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        official.save_pretrained(saved)
        if not (Path(saved) / FAST).is_file():
            raise StageFailed(f"{vocabulary}: this kind of tokenizer has no tokenizer.json; name another tokenizer")
        for name in (FAST, CONFIG):
            shutil.copyfile(Path(saved) / name, folder / name)
    config = read_json(folder / CONFIG)
    for key in ("name_or_path", "is_local", "local_files_only"):
        config.pop(key, None)
    write_json(folder / CONFIG, config)


def check_fit(tokenizer: dict[str, Any], config: dict[str, Any], spare: Collection[str] = ()) -> dict[str, int]:
    """Check that every id the tokenizer can give has its row in the model's embeddings; return the counts as facts.

    Args:
        tokenizer: tokenizer.json.
        config: config.json.
        spare: tokens that may have none.

    Raises:
        RecipeError: the tokenizer is of another model; names both numbers.
        StageFailed: tokenizer.json is not a valid one.
    """
    ids = ids_of(tokenizer)
    ids = {token: number for token, number in ids.items() if token not in spare} or ids
    largest = max(ids, key=lambda token: ids[token])
    size = _vocabulary(config)
    if size is None:
        return {"tokens": len(set(ids.values()))}
    if ids[largest] >= size:
        raise RecipeError(
            f"tokenizer and model do not fit: the tokenizer's {largest!r} is number {ids[largest]}, the model has "
            f"{size} embeddings (vocab_size); name the tokenizer the model was trained with"
        )
    check_special(config)
    return {"tokens": len(set(ids.values())), "vocab_size": size}


def check_special(config: dict[str, Any]) -> None:
    """Check that the special tokens that config.json names have embeddings.

    Raises:
        RecipeError: one has not.
    """
    size = _vocabulary(config)
    for key in ("pad_token_id", "bos_token_id", "cls_token_id", "sep_token_id"):
        token = config.get(key)
        if size is not None and isinstance(token, int) and token >= size:
            raise RecipeError(f"config.json: {key} is {token}, but vocab_size is {size}; correct it in the model")


def _vocabulary(config: dict[str, Any]) -> int | None:
    inner = config.get("text_config")
    for said in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(said.get("vocab_size"), int):
            return int(said["vocab_size"])
    return None


def ids_of(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Return token -> id of everything that a tokenizer.json can give.

    Raises:
        StageFailed: it is not a valid one.
    """
    if not (found := dict(_ids(tokenizer))):
        raise StageFailed(f"{FAST}: not a valid tokenizer: it has no vocabulary")
    return found


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
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise StageFailed(f"{FAST}: not a valid tokenizer: {type(error).__name__} {error}; fetch it again") from None
