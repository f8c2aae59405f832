"""Which data files belong to which split: README.md's header says it, else the files' names do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.repo_files import SPLITS, names_split
from cpu_pipeline.core.text import one_line

LONGEST_HEADER = 1 << 20
"""Bytes of README.md that are looked at for its YAML header."""


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
    configurations = _configs(readme) if readme.is_file() else {}
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
            f"{where}: README.md says that split {split!r} is {', '.join(patterns[split])}, and no .parquet, .csv or "
            f".jsonl file there is called so; choose another split or data set"
        )
    return chosen


def _by_name(names: Sequence[str], config: str | None, split: str, where: str) -> list[str]:
    if config is not None:
        inside = [name for name in names if names_split(name, config)]
        if not inside:
            raise RecipeError(f"{where}: no file is named after the configuration {config!r}; leave `config:` out")
        names = inside
    chosen = sorted(name for name in names if names_split(name, split))
    known_splits = {known for known in SPLITS for name in names if names_split(name, known)}
    if not chosen and split == "train" and not known_splits:
        return sorted(names)
    if not chosen:
        raise RecipeError(f"{where}: no split {split!r}; there is {', '.join(sorted(known_splits)) or 'train'}")
    return chosen


def _configs(readme: Path) -> dict[str, tuple[dict[str, list[str]], bool]]:
    """Read configuration -> (split -> patterns, is the usual one)."""
    with readme.open("rb") as file:
        text = file.read(LONGEST_HEADER).decode("utf-8", errors="replace")
    header = re.match(r"---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    settings = _yaml(header[1]) if header else None
    entries = settings.get("configs") if isinstance(settings, dict) else None
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or "data_files" not in entry:
            continue
        base = str(entry.get("data_dir") or "").strip("/")
        splits = {
            split: [f"{base}/{pattern}" if base else pattern for pattern in patterns]
            for split, patterns in _patterns(entry["data_files"]).items()
        }
        found[str(entry.get("config_name", "default"))] = (splits, entry.get("default") is True)
    return found


def _yaml(text: str) -> Any:
    import yaml

    if len(re.findall(r"(?m)(?:^|[\s\[{,:])[*&][\w-]+", text)) > 64:
        raise StageFailed("README.md: its header has too many YAML anchors and aliases")
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise StageFailed(f"README.md: not a valid YAML header: {one_line(error)}; choose another revision") from None


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
