"""Which files of a model, a tokenizer or a data set are wanted, judged by name alone, and how files are copied."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

from cpu_pipeline.core.artifact import CARD
from cpu_pipeline.core.errors import RecipeError, Refused

Format = Literal["hf", "onnx", "openvino"]
"""The format of a model at its source."""

DATA = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
"""Endings of files that hold rows; those of text may have `.gz` behind them."""

NO_ROWS = frozenset(
    {"config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "package.json", "state.json"}
)
"""JSON files of a data set's repository that hold no rows."""

ORDER = ".order"
"""Beside fetched files of rows: their names in the order in which they are read, where that is not the usual one."""

INFOS = "dataset_infos.json"
"""Where older data sets describe their columns; newer ones do so in the header of README.md."""

TOKENIZER = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
    | {"vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "dict.txt"}
)
"""Files at the top of a checkpoint that belong to its tokenizer; so do `VOCABULARY` endings."""

VOCABULARY = (".model", ".spm")
"""Endings of sentencepiece vocabularies."""

SETTINGS = re.compile(
    r"(config|structure|adapter_config|generation_config|((image_|video_)?pre)?processor_config|"
    r"modules|config_sentence_transformers|sentence_[\w-]+_config|"
    r"chat_template|entity_vocab|emoji|normalizer|target_vocab|vocab-(src|tgt)|word_shape|word_pronunciation)\.json"
)
"""JSON at the top of a checkpoint that is read; what else lies there, such as training's state, is in no key.

They are settings of the model, of sentence-transformers, files of single tokenizers (`vocab_files_names`).
"""

MODULE = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")
"""Files of sentence-transformers' modules, such as 1_Pooling/config.json and 2_Dense/model.safetensors."""

PICKLE = re.compile(r"(\d+_\w+/)?pytorch_model.*\.bin(\.index\.json)?")
"""Pickled weights, of the model or of such a module."""

LONGEST_NAME = 255
"""Bytes of a name that common file systems take."""
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing, so that a name looks like another."""

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> the words that stand for it in file names."""


def check_name(name: str) -> str:
    """Return a relative POSIX file name that stays below its folder.

    Raises:
        Refused: it is absolute, climbs with `..`, or has backslashes, drive letters, control characters or marks that
            turn the direction of writing.
        RecipeError: no file system takes it.
    """
    try:
        long = any(len(part.encode()) > LONGEST_NAME for part in name.split("/"))
    except UnicodeEncodeError:
        raise RecipeError(f"file name {name!r}: it holds half of a character; use another repository") from None
    if long:
        raise RecipeError(f"file name {name[:60]!r}...: it has more than {LONGEST_NAME} bytes; use another repository")
    parts = name.split("/")
    odd = (
        any(unicodedata.category(c) == "Cc" or c in TURNING for c in name)
        or "\\" in name
        or re.match(r"[A-Za-z]:", name)
    )
    if not name or odd or any(part in ("", ".", "..") for part in parts):
        raise Refused(f"file name {name!r}: it leads outside its folder or is no plain name; use another repository")
    return name


def is_tokenizer(name: str) -> bool:
    """Say whether a file at the top of a checkpoint belongs to its tokenizer."""
    return name in TOKENIZER or ("/" not in name and name.endswith(VOCABULARY))


def choose_tokenizer(names: Iterable[str]) -> list[str]:
    """Choose the files of the tokenizer, sorted."""
    return sorted(name for name in names if is_tokenizer(name))


def format_of(names: Collection[str]) -> Format:
    """Tell the format of a model by its files; `hf` where nothing tells."""
    if any(re.fullmatch(r"(model|pytorch_model).*\.(safetensors|bin)(\.index\.json)?", name) for name in names):
        return "hf"
    if any(name.endswith(".onnx") for name in names):
        return "onnx"
    return "openvino" if any(name.endswith(".xml") for name in names) else "hf"


def choose_model(names: Collection[str], format: Format, where: str) -> list[str]:
    """Choose the files of a model in `format`, its tokenizer's included, sorted.

    Safetensors are preferred. Pickled weights are chosen where there are no others: `refuse_pickles` judges them.

    Args:
        names: the files of the directory or repository.
        format: the format of the weights.
        where: the directory or repository, for messages.

    Raises:
        RecipeError: config.json or weights in that format are missing.
    """
    if "config.json" not in names:
        raise RecipeError(f"{where}: no config.json; name a folder or repository that holds a model")
    common = {n for n in names if SETTINGS.fullmatch(n) or n == CARD}
    common |= {n for n in names if is_tokenizer(n)} | _modules(names)
    weights = {"hf": _hf, "onnx": _onnx, "openvino": _openvino}[format](set(names), where)
    return sorted(common | weights)


def _modules(names: Collection[str]) -> set[str]:
    """Choose the files of sentence-transformers' modules; pickled weights where one has no others."""
    pickled = {n for n in names if re.fullmatch(r"\d+_\w+/pytorch_model\.bin", n)}
    safe = {n for n in names if MODULE.fullmatch(n)}
    return safe | {n for n in pickled if str(PurePosixPath(n).with_name("model.safetensors")) not in safe}


def _hf(names: set[str], where: str) -> set[str]:
    for single, index, shard in (
        ("model.safetensors", "model.safetensors.index.json", r"model-\d+-of-\d+\.safetensors"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", r"pytorch_model-\d+-of-\d+\.bin"),
    ):
        if single in names:
            return {single}
        if index in names:
            return {index} | {n for n in names if re.fullmatch(shard, n)}
    raise RecipeError(
        f"{where}: no weights: neither model.safetensors nor its shards with model.safetensors.index.json; "
        f"say `format: onnx` or `format: openvino` if it holds an exported model"
    )


def _onnx(names: set[str], where: str) -> set[str]:
    graph = _only(names, ".onnx", ("model.onnx", "onnx/model.onnx"), where)
    stem = graph.removesuffix(".onnx")
    return {n for n in names if n == graph or n.startswith(f"{graph}_data") or n in (f"{graph}.data", f"{stem}.data")}


def _openvino(names: set[str], where: str) -> set[str]:
    graph = _only(names, ".xml", ("openvino_model.xml", "openvino/openvino_model.xml"), where)
    weights = graph.removesuffix(".xml") + ".bin"
    if weights not in names:
        raise RecipeError(f"{where}: {graph} has no {PurePosixPath(weights).name} beside it; bring both")
    return {graph, weights}


def _only(names: set[str], ending: str, usual: Sequence[str], where: str) -> str:
    top = sorted(n for n in names if "/" not in n and n.endswith(ending))
    for name in usual:
        if name in names:
            return name
    if len(top) == 1:
        return top[0]
    found = f"{len(top)} files end in {ending} ({', '.join(top[:4])})" if top else f"no {usual[0]}"
    raise RecipeError(f"{where}: {found}; keep one, called {usual[0]}")


def refuse_pickles(names: Iterable[str], allow: Collection[str], where: str) -> None:
    """Refuse weights that are pickles, unless the recipe allows them.

    Args:
        names: the chosen files.
        allow: the permissions of the recipe.
        where: the directory or repository, for messages.

    Raises:
        Refused: the message names the line that would allow it.
    """
    pickled = sorted((name for name in names if PICKLE.fullmatch(name)), key=lambda name: ("/" in name, name))
    if pickled and "pickle" not in allow:
        whose = f"the only weights of {pickled[0].partition('/')[0]}" if "/" in pickled[0] else "its only weights"
        raise Refused(
            f"{where}: {whose} are pickled ({pickled[0]}), and a pickle can run code; choose a revision with "
            f"model.safetensors, or say `allow: [pickle]` in the recipe if you trust it"
        )


def data_kind(name: str) -> str | None:
    """Return the ending in `DATA` that tells how to read a file of rows, without `.gz`; None for any other file."""
    plain = name.lower()
    if plain.endswith(".gz") and not plain.endswith(".parquet.gz"):
        plain = plain.removesuffix(".gz")
    return next((ending for ending in DATA if plain.endswith(ending)), None)


def names_split(name: str, split: str) -> bool:
    """Say whether a file's name has the split (or a word that stands for it) between separators."""
    words = SPLITS.get(split.lower(), (split,))
    return any(re.search(rf"(?<![A-Za-z0-9]){re.escape(w)}(?![A-Za-z0-9])", name, re.IGNORECASE) for w in words)


def choose_data(names: Collection[str], split: str, config: str | None, where: str) -> list[str]:
    """Choose every file that may contain the split, and those that describe the data set, sorted.

    Args:
        names: the files of the directory or repository.
        split: the split, such as `train`.
        config: the configuration of the data set; None for the only one.
        where: the directory or repository, for messages.

    README.md's header tells which of them do, and `load.rows` reads it offline; rather too many files are chosen.

    Raises:
        RecipeError: no file holds rows that can be read.
    """
    files = sorted(n for n in names if data_kind(n) and not n.startswith(".") and PurePosixPath(n).name not in NO_ROWS)
    if not files:
        raise _no_data(names, where)
    if config:
        files = [n for n in files if config in re.split(r"[/.]", n) or names_split(n, config)] or files
    named = [n for n in files if names_split(n, split)]
    nameless = [n for n in files if not any(names_split(n, other) for other in SPLITS)]
    about = [n for n in names if n in ("README.md", INFOS)]
    return sorted(about + (named or nameless or files))


def _no_data(names: Collection[str], where: str) -> RecipeError:
    scripts = sorted(n for n in names if "/" not in n and n.endswith(".py"))
    if not scripts:
        return RecipeError(
            f"{where}: no file of rows ({', '.join(DATA)}); name a data set that is stored as such files"
        )
    return RecipeError(
        f"{where}: its rows come from a script, {scripts[0]}, and scripts of data sets are not run; the Hub keeps most "
        f"such data sets as Parquet, too: name the commit that "
        f"`cpu-pipeline pin --data OWNER/NAME refs/convert/parquet` prints as `revision:`"
    )


def copy_file(source: Path, target: Path) -> None:
    """Copy one file's bytes, sharing blocks where the file system can; never a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("xb") as new:
        if hasattr(os, "copy_file_range"):
            try:
                while os.copy_file_range(old.fileno(), new.fileno(), 1 << 30):
                    pass
            except OSError:  # another file system, or one that cannot: the rest is copied below
                pass
        shutil.copyfileobj(old, new, 1 << 20)


def copy_files(files: Mapping[str, Path], out: Path) -> None:
    """Copy name -> file into `out`, each under its name."""
    for name, path in sorted(files.items()):
        copy_file(path, out / name)


WEIGHTS = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.h5",
    "*.msgpack", "*.gguf", "*.onnx", "*.onnx_data", "*.onnx.data", "openvino*.xml", CARD, ".*",
)  # fmt: skip
"""Names that `carry` leaves behind: weights in any form, the card of another artifact, hidden files."""


def carry(source: Path, out: Path) -> None:
    """Copy everything but the model's weights from one model directory to another: config, tokenizer, pooling, ...

    The weights of sentence-transformers' modules go with them: no format has these layers in its own.
    """
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        weights = any(fnmatchcase(part, pattern) for part in name.parts for pattern in WEIGHTS)
        if path.is_dir() or (weights and not MODULE.fullmatch(name.as_posix())):
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)


Want = Literal["model", "tokenizer", "data"]
