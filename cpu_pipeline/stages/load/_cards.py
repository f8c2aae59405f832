"""What a data set says of itself: the header of its README.md, and the older dataset_infos.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core import tables
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import parse
from cpu_pipeline.core.repo_files import INFOS
from cpu_pipeline.core.text import one_line

README = "README.md"
LONGEST = 1 << 20
"""Bytes that are looked at for a header, and of the longest dataset_infos.json."""


def header(readme: Path) -> Mapping[str, Any]:
    """Read the YAML header of a README.md; empty where there is none.

    Raises:
        RecipeError: it is not valid, or built to take all memory.
    """
    if not readme.is_file():
        return {}
    with readme.open("rb") as file:
        text = file.read(LONGEST).decode("utf-8-sig", errors="replace")
    found = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    settings = _yaml(found[1]) if found else None
    return settings if isinstance(settings, dict) else {}


def _yaml(text: str) -> Any:
    import yaml

    if len(re.findall(r"(?m)(?:^|[\s\[{,:])[*&][\w-]+", text)) > 64:
        raise RecipeError("README.md: its header has too many YAML anchors and aliases; choose another revision")
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"README.md: not a valid YAML header: {one_line(error)}; choose another revision") from None


def class_names(home: Path, config: str | None) -> dict[str, list[str]]:
    """List column -> names of its class numbers, as the data set describes it; for files that do not say so themselves.

    Args:
        home: the data set's folder.
        config: the configuration that is read; None for the only one, or the one called `default`.
    """
    described = _of_infos(home / INFOS) | _of_header(header(home / README).get("dataset_info"))
    if config is None:
        config = next(iter(described)) if len(described) == 1 else "default"
    return {column: names for column, names in described.get(config, {}).items() if names}


def _of_infos(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read configuration -> column -> names; a file that is something else names nothing."""
    if not path.is_file() or path.stat().st_size > LONGEST:
        return {}
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    found = {}
    for config, info in document.items() if isinstance(document, dict) else ():
        features = info.get("features") if isinstance(info, dict) else None
        if isinstance(features, dict):
            found[config] = {column: tables.class_names(feature) for column, feature in features.items()}
    return found


def _of_header(info: Any) -> dict[str, dict[str, list[str]]]:
    """Read configuration -> column -> names of `dataset_info`, which describes one configuration or lists several.

    Columns are written as the Hub documents it: `{name: label, dtype: {class_label: {names: {'0': bad, '1': good}}}}`.
    """
    found = {}
    for entry in info if isinstance(info, list) else [info]:
        features = entry.get("features") if isinstance(entry, dict) else None
        if isinstance(features, list):
            columns = [feature for feature in features if isinstance(feature, dict)]
            found[str(entry.get("config_name", "default"))] = {str(c.get("name")): _names(c) for c in columns}
    return found


def _names(feature: Any) -> list[str]:
    """Find the names of a `class_label`, plain or in sequences."""
    while isinstance(feature, dict) and "class_label" not in feature:
        feature = next((feature[key] for key in ("dtype", "sequence", "list", "large_list") if key in feature), None)
    label = feature["class_label"] if isinstance(feature, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        return [str(names[key]) for key in sorted(names, key=lambda key: int(str(key)))]
    return [str(name) for name in names] if isinstance(names, list) else []
