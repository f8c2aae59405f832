"""Screening of a checkpoint's JSON: sizes are capped, and keys that make a library load code are refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed

LARGEST = 256 << 20
"""Bytes of the largest JSON file that is read; vocabularies of real models stay below 40 MiB."""

DEEPEST = 100
"""Levels of JSON that are read; libraries that walk it end in an error of their own at some hundreds."""

CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
"""Keys that name code of the repository. https://huggingface.co/docs/transformers/custom_models"""

KERNELS = frozenset(
    {"_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation"}
)
"""Keys that choose an implementation: a plain name is built in, anything else may be code on the Hub."""

INTERNAL = frozenset({"_attn_implementation_internal", "_experts_implementation_internal"})
"""Keys that never belong in a file: through them a configuration loaded code unasked (CVE-2026-4372)."""

ADAPTER = "adapter_config.json"
"""What makes transformers apply an adapter, where peft is installed."""

PATHS = ("_name_or_path", "name_or_path")
"""Keys that tell where a copy came from; without them equal models have equal digests."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StageFailed: it is too large, too deep, not JSON or not an object.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise StageFailed(f"{path.name}: {size} bytes; JSON of a checkpoint is at most {LARGEST}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageFailed(f"{path.name}: not a valid JSON file: {error}; fetch or save it again") from None
    if not isinstance(value, dict):
        raise StageFailed(f"{path.name}: not a valid configuration: it must be a JSON object")
    if _deep(value):
        raise StageFailed(f"{path.name}: not a valid configuration: nested deeper than {DEEPEST}; fetch it again")
    return value


def _deep(value: Any) -> bool:
    """Say whether JSON has more than `DEEPEST` levels."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object as the ecosystem writes configurations."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def screen(folder: Path, allow: Collection[str]) -> None:
    """Check every configuration in `folder`; when the recipe allows it, remove what would load code instead.

    `PATHS` go too, and an empty `auto_map`, which transformers cannot read.

    Raises:
        Refused: a configuration names code, and the recipe has no `allow: [auto_map]`.
    """
    for path in sorted(p for p in folder.rglob("*.json") if "config" in p.name):
        config = read_json(path)
        dangers = list(_dangers(config))
        if dangers and "auto_map" not in allow:
            raise Refused(
                f"{path.name}: `{dangers[0]}` makes libraries run code that comes with the model, which this tool "
                f"never does; choose a model without it, or say `allow: [auto_map]` in the recipe to remove the key"
            )
        gone = [key for key in config if key in PATHS or (key == "auto_map" and not config[key])]
        if dangers or gone:
            write_json(path, {key: value for key, value in _without(config).items() if key not in gone})


def refuse_adapter(folder: Path) -> None:
    """Refuse a model with an adapter beside it: whether it is applied depends on the packages that are installed.

    Raises:
        RecipeError: it has one; says what to do.
    """
    if (folder / ADAPTER).is_file():
        raise RecipeError(
            f"{ADAPTER}: the model comes with an adapter that is not merged into its weights; merge it with peft "
            f"(`merge_and_unload`) and save the model again, or take the file out to build the model without it"
        )


def _dangers(value: Any) -> Iterator[str]:
    """Name every key, at any depth, that would load code."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if _is_danger(key, inner):
                yield key
            else:
                yield from _dangers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dangers(inner)


def _is_danger(key: str, value: Any) -> bool:
    if key in KERNELS:
        names = value.values() if isinstance(value, dict) else [value]
        return not all(name is None or (isinstance(name, str) and name.isidentifier()) for name in names)
    return key in INTERNAL or (key in CODE and bool(value))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if not _is_danger(key, inner)}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
