"""Which data files belong to which split: README.md's header says it, else the files' names do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import DATA, SPLITS, data_kind, names_split
from cpu_pipeline.stages.load import _cards

SHARD = re.compile(r"-\d+(-of-\d+)?(-[0-9a-f]{8,})?(?=\.|$)")
"""The number of a part in a file's name, as in `train-00000-of-00002.parquet`."""


def choose(names: Sequence[str], readme: Path, config: str | None, split: str | None, where: str) -> list[str]:
    """Choose the files of one split, in the order of their names; of all when `split` is None.

    README.md's header is read as the Hub documents it (`configs:` with `data_files:`),
    https://huggingface.co/docs/hub/datasets-manual-configuration

    Args:
        names: data files, relative to the data set's folder.
        readme: its README.md, which may be missing.
        config: configuration of the data set, where it has several.
        split: the split's name.
        where: what is read, for messages.

    Raises:
        RecipeError: there is no such split or configuration; names those there are.
    """
    if split is None:
        return sorted(names)
    configurations = _configs(readme, names)
    if not configurations:
        return _by_name(names, config, split, where)
    if config is None:
        config = next((name for name, (_, usual) in configurations.items() if usual), None)
    if config is None and "default" in configurations:
        config = "default"
    elif config is None and len(configurations) == 1:
        config = next(iter(configurations))
    if config not in configurations:
        problem = f"no configuration {config!r}" if config else "it has several configurations"
        raise RecipeError(f"{where}: {problem}; say `config:` with one of {', '.join(sorted(configurations))}")
    patterns = configurations[config][0]
    if split not in patterns:
        raise RecipeError(f"{where}: no split {split!r}; there is {', '.join(sorted(patterns))}")
    chosen = [name for name in sorted(names) if any(_glob(pattern).fullmatch(name) for pattern in patterns[split])]
    if not chosen:
        raise RecipeError(
            f"{where}: README.md says that split {split!r} is {', '.join(patterns[split])}, and no file of rows "
            f"({', '.join(DATA)}) is called so; choose another split or data set"
        )
    return chosen


def _by_name(names: Sequence[str], config: str | None, split: str, where: str) -> list[str]:
    if config is not None:
        names = _of_config(names, config, where)
    chosen = _one_kind(_of_split(names, split))
    known = {known for known in SPLITS for name in names if names_split(name, known)}
    known |= {_stem(name) for name in names if "-of-" in name}
    if not chosen and split == "train" and not known:
        return sorted(_one_kind(names))
    if not chosen:
        raise RecipeError(f"{where}: no split {split!r}; there is {', '.join(sorted(known)) or 'train'}")
    if config is None:
        _check_place(chosen, split, where)
    return sorted(chosen)


def _of_config(names: Sequence[str], config: str, where: str) -> Sequence[str]:
    """Choose the files in the configuration's folder; where there is none, those with its name between separators."""
    inside = [name for name in names if f"/{config}/" in f"/{name}"]
    inside = inside or [name for name in names if names_split(name, config)]
    if not inside:
        there = sorted({name.partition("/")[0] for name in names if "/" in name})
        hint = f"there is {', '.join(there)}" if len(there) > 1 else "leave `config:` out"
        raise RecipeError(f"{where}: no file is named after the configuration {config!r}; {hint}")
    return inside


def _of_split(names: Sequence[str], split: str) -> list[str]:
    """Choose the files that are called as the split, apart from the number of a part; else those that name it at all.

    So `train` does not mean train_sft-00000-of-00002.parquet where there is train-00000-of-00002.parquet.
    """
    exact = [name for name in names if _stem(name).lower() in SPLITS.get(split.lower(), (split.lower(),))]
    return exact or [name for name in names if names_split(name, split)]


def _stem(name: str) -> str:
    plain = SHARD.sub("", name.rpartition("/")[2])
    return plain.partition(".")[0]


def _one_kind(names: Sequence[str]) -> list[str]:
    """Choose the files of one kind: a data set that offers several offers the same rows. Parquet, else the most."""
    kinds = Counter(data_kind(name) for name in names)
    best = max(kinds, key=lambda kind: (kind == ".parquet", kinds[kind]), default=None)
    return [name for name in names if data_kind(name) == best]


def _check_place(names: Sequence[str], split: str, where: str) -> None:
    """Check that a split's files lie in one folder: several are as many configurations.

    Raises:
        RecipeError: lists them.
    """
    places = set()
    for name in names:
        parts = name.split("/")
        first = next((i for i, part in enumerate(parts) if names_split(part, split)), len(parts) - 1)
        places.add("/".join(parts[:first]))
    if len(places) > 1 and "" not in places:
        raise RecipeError(
            f"{where}: split {split!r} lies in several folders; say `config:` with one of {', '.join(sorted(places))}"
        )


def _configs(readme: Path, names: Sequence[str]) -> dict[str, tuple[dict[str, list[str]], bool]]:
    """Read configuration -> (split -> patterns, is the usual one)."""
    entries = _cards.header(readme).get("configs")
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        base = str(entry.get("data_dir") or "").strip("./")
        if "data_files" in entry:
            splits = {
                split: [f"{base}/{pattern}" if base else pattern.removeprefix("./") for pattern in patterns]
                for split, patterns in _patterns(entry["data_files"]).items()
            }
        else:
            inside = [name for name in names if name.startswith(f"{base}/") or not base]
            splits = {split: [re.sub(r"([*?\[])", r"[\1]", n) for n in _of_split(inside, split)] for split in SPLITS}
            splits = {split: patterns for split, patterns in splits.items() if patterns}
        found[str(entry.get("config_name", "default"))] = (splits, entry.get("default") is True)
    return found


def _patterns(value: Any) -> dict[str, list[str]]:
    """Bring `data_files` to split -> patterns; it may be one pattern, a list of them, a list of splits, or a map."""
    if isinstance(value, dict):
        return {str(split): _texts(patterns) for split, patterns in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(item.get("split", "train")): _texts(item.get("path")) for item in value}
    return {"train": _texts(value)}


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a pattern: `*` and `?` stay within a folder, `**` crosses folders, `[...]` as in the shell."""
    parts = []
    for piece in re.findall(r"\*\*/?|\*|\?|\[!?[^\]]+\]|[^*?\[]+|\[", pattern):
        if piece.startswith("**"):
            parts.append("(?:.*/)?" if piece.endswith("/") else ".*")
        elif piece in ("*", "?"):
            parts.append("[^/]*" if piece == "*" else "[^/]")
        elif piece.startswith("[") and len(piece) > 1:
            inner = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            parts.append("[" + ("^" + inner[1:] if inner.startswith("!") else inner) + "]")
        else:
            parts.append(re.escape(piece))
    try:
        return re.compile("".join(parts))
    except re.error:
        return re.compile(re.escape(pattern))
