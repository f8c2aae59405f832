"""What tasks share: the tokenizer and configuration of a model's directory, and checks of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.model_io import InputKind
from cpu_pipeline.tasks._feature import Feature
from cpu_pipeline.tasks._files import read_json
from cpu_pipeline.tasks._settings import TYPES, UNPADDED, input_names
from cpu_pipeline.tasks._settings import positions as positions
from cpu_pipeline.tasks._settings import read_config as read_config
from cpu_pipeline.tasks._settings import settings as settings

CHUNK = 1000
"""Rows tokenised at once; bounds what the tokenizer holds."""


def token_kinds(model: Path) -> dict[str, InputKind]:
    """List what the tokens of a text become for the model in a directory (see `Task.input_kinds`).

    Ids are padded with the padding token of config.json, or 0 where it names none. A model that padding disturbs is
    never padded: its texts share a batch with others of their length alone.
    """
    config = read_config(model)
    number = config.get("pad_token_id")
    padding = number if isinstance(number, int) and number >= 0 else 0
    if config.get("model_type") in UNPADDED:
        return {name: InputKind(fill=None) for name in input_names(model)}
    return {name: InputKind(fill=padding if name == "input_ids" else 0) for name in input_names(model)}


def labels(model: Path) -> list[str]:
    """List the names of a classifier's outputs by number: id2label of config.json, or `LABEL_0`, ... without one.

    Where id2label has no names and label2id has, its names are taken.

    Raises:
        RecipeError: id2label does not name the outputs 0, 1, 2, ..., or label2id says otherwise.
    """
    return label_names(read_config(model))


def label_names(config: Mapping[str, Any]) -> list[str]:
    """List what `labels` does, of the contents of config.json."""
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


def longest(task: BaseModel, model: Path) -> int:
    """Say how many tokens a task keeps of each row, from its option `max_seq_length`.

    What the recipe sets holds. The option's default is cut to what the tokenizer (`model_max_length`) and the model's
    positions allow.
    """
    if (asked := set_length(task)) is not None:
        return asked
    usual: int = type(task).model_fields["max_seq_length"].default
    return min(filter(None, (usual, settings(model).model_max_length, positions(model))))


def set_length(task: BaseModel) -> int | None:
    """Return the task's option `max_seq_length` where the recipe sets it; None where it is the option's default."""
    field = type(task).model_fields.get("max_seq_length")
    asked: int | None = getattr(task, "max_seq_length", None)
    return None if field is None or asked == field.default else asked


Cut = Literal["longest_first", "only_first", "only_second"]
"""Which sequence of a pair is cut."""


def tokenizer(
    model: Path,
    max_length: int,
    strategy: Cut = "longest_first",
    stride: int = 0,
    prefix_space: bool = False,
) -> Any:
    """Load the tokenizer of a model's directory, cut at `max_length` tokens and unpadded, whatever its file sets.

    It cuts at the side that its settings name, and encodes as AutoTokenizer does (`load.model` sees to that). It is
    loaded once per directory and set anew on each call, so use it before asking for another.

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
    said = settings(model)
    found.encode_special_tokens = said.split_special_tokens
    found.enable_truncation(max_length, stride=stride, strategy=strategy, direction=said.truncation_side)
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


def inputs(encoding: Any, model: Path) -> dict[str, list[int]]:
    """Take the model's inputs from one encoding.

    A tokenizer that does not give token types leaves them to the model, for which they are then 0.
    """
    types = encoding.type_ids if TYPES in settings(model).model_input_names else [0] * len(encoding.ids)
    given = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, TYPES: types}
    return {name: given[name] for name in input_names(model)}


def check_filled(rows: Sequence[Mapping[str, Any]], features: Sequence[Feature]) -> None:
    """Check that every feature has a token: a model can answer nothing to none.

    Raises:
        RecipeError: one is empty; names its row.
    """
    empty = next((feature for feature in features if not feature.length), None)
    if empty is not None:
        raise RecipeError(
            f"row {rows[empty.row]['id']}: its text is empty, and the tokenizer adds no special tokens, so that the "
            "model would read nothing; remove the row, or give it a text"
        )


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
