"""What tasks share: the tokenizer and configuration of a model's directory, and checks of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._feature import Feature
from cpu_pipeline.tasks._files import read_json

CHUNK = 1000
"""Rows tokenised at once; bounds what the tokenizer holds."""

ABSOLUTE = {"albert", "bert", "camembert", "distilbert", "electra", "mobilebert", "mpnet", "roberta", "xlm-roberta"}
"""Model types whose `max_position_embeddings` is a hard limit on the length."""
OFFSET = {"camembert", "mpnet", "roberta", "xlm-roberta"}
"""Those of them that count positions from the padding id + 1, so that they take that many tokens less."""


def read_config(model: Path) -> dict[str, Any]:
    """Read config.json of a model's directory.

    Raises:
        RecipeError: it is missing or not JSON.
    """
    config: dict[str, Any] = read_json(model / "config.json", "a model's directory needs one")
    return config


def pad_id(model: Path) -> int:
    """Read the padding token's id from a model directory's config.json; 0 where it names none."""
    number = read_config(model).get("pad_token_id")
    return number if isinstance(number, int) and number >= 0 else 0


def labels(model: Path) -> list[str]:
    """List the names of a classifier's outputs by number: id2label of config.json, or `LABEL_0`, ... without one.

    Where id2label has no names and label2id has, its names are taken.

    Raises:
        RecipeError: id2label does not name the outputs 0, 1, 2, ..., or label2id says otherwise.
    """
    config = read_config(model)
    names, numbers = config.get("id2label"), config.get("label2id") or {}
    if not names:
        found = default_labels(config.get("num_labels") or 2)
    else:
        given = {str(key): str(name) for key, name in names.items()}
        if set(given) != {str(number) for number in range(len(given))}:
            raise RecipeError(
                f"config.json: id2label names the outputs {', '.join(given)}; "
                f"{len(given)} outputs are 0 to {len(given) - 1}: correct it"
            )
        found = [given[str(number)] for number in range(len(given))]
    return _agreed(found, {str(name): number for name, number in numbers.items()})


def default_labels(count: int) -> list[str]:
    """List the names that transformers gives to outputs without names."""
    return [f"LABEL_{number}" for number in range(count)]


def _agreed(names: list[str], numbers: Mapping[str, Any]) -> list[str]:
    """Compare the names with label2id; what it says of outputs without names of their own is taken."""
    if names == default_labels(len(names)) and sorted(map(str, numbers.values())) == sorted(
        map(str, range(len(names)))
    ):
        return [name for _, name in sorted((int(number), name) for name, number in numbers.items())]
    for name, number in numbers.items():
        if name in names and not (str(number).isdecimal() and names[int(number) : int(number) + 1] == [name]):
            raise RecipeError(
                f"config.json: label2id says that {name} is {number}, id2label that it is "
                f"{names.index(name)}; correct the one that is wrong"
            )
    return names


def positions(model: Path) -> int | None:
    """Return how many tokens the model can take at most; None where its config.json does not limit it."""
    config = read_config(model)
    if config.get("model_type") not in ABSOLUTE or not isinstance(config.get("max_position_embeddings"), int):
        return None
    limit = int(config["max_position_embeddings"])
    return limit - int(config.get("pad_token_id") or 0) - 1 if config["model_type"] in OFFSET else limit


def tokenizer(
    model: Path,
    max_length: int,
    strategy: Literal["longest_first", "only_second"] = "longest_first",
    stride: int = 0,
    prefix_space: bool = False,
) -> Any:
    """Load the tokenizer of a model's directory, cut at `max_length` tokens and unpadded, whatever its file sets.

    It is loaded once per directory and set anew on each call, so use it before asking for another.

    Args:
        model: The directory with tokenizer.json and config.json.
        max_length: Tokens kept, special ones included.
        strategy: Which sequence of a pair is cut.
        stride: Tokens that neighbouring windows of a cut sequence share.
        prefix_space: Let a byte-level tokenizer see a space before each word, as pre-split words need.

    Raises:
        RecipeError: there is none, or the model takes fewer tokens than `max_length`.
    """
    limit = positions(model)
    if limit is not None and max_length > limit:
        raise RecipeError(
            f"{model.name}: max_seq_length is {max_length}, but the model has {limit} positions; lower it"
        )
    file = model / "tokenizer.json"
    found = _load(file, file.stat().st_mtime_ns if file.is_file() else 0, prefix_space)
    found.enable_truncation(max_length, stride=stride, strategy=strategy, direction="right")
    found.no_padding()
    return found


@lru_cache(maxsize=8)
def _load(file: Path, stamp: int, prefix_space: bool) -> Any:
    from tokenizers import Tokenizer, pre_tokenizers

    read_json(file, "save the checkpoint's fast tokenizer beside it (`AutoTokenizer` ... `save_pretrained`)")
    found = Tokenizer.from_file(str(file))
    if prefix_space and isinstance(found.pre_tokenizer, pre_tokenizers.ByteLevel):
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=found.pre_tokenizer.use_regex)
    return found


def inputs(encoding: Any) -> dict[str, list[int]]:
    """Take the model's inputs from one encoding."""
    return {
        "input_ids": encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
    }


def by_row(features: Sequence[Feature], count: int) -> list[list[int]]:
    """List, for each of `count` rows, the numbers of its features."""
    found: list[list[int]] = [[] for _ in range(count)]
    for number, feature in enumerate(features):
        found[feature.row].append(number)
    return found


def text(raw: Mapping[str, Any], column: str) -> str:
    """Take a column that must be text.

    Raises:
        ValueError: it is missing or something else.
    """
    value = raw.get(column)
    if not isinstance(value, str):
        what = "missing" if value is None else f"{type(value).__name__}, not text"
        raise ValueError(f"`{column}` is {what}")
    return value


def named(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a row with the id that the raw one has, as text."""
    return {"id": str(raw["id"])} if raw.get("id") is not None else {}


def unlabelled(row: Mapping[str, Any], column: str) -> RecipeError:
    """Return the error for a row that cannot be scored."""
    return RecipeError(f"row {row['id']}: no `{column}` to score against; map the column that has it (`columns:`)")


def counts(rows: Sequence[Mapping[str, Any]], predictions: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Count rows, rows without a prediction, predictions of no row, and predictions made of NaN or infinity."""
    names = [row["id"] for row in rows]
    missing = sum(name not in predictions for name in names)
    return {
        "rows": len(names),
        "missing": missing,
        "unknown": len(predictions) - (len(names) - missing),
        "nan": sum(bool(predictions[name].get("nan")) for name in names if name in predictions),
    }
