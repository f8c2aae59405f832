"""Where models and data come from: one file for each source; the only code that goes online."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from cpu_pipeline.core.registry import Registry
from cpu_pipeline.core.repo_files import Want
from cpu_pipeline.sources._base import Source

__all__ = ["Source", "Want", "find", "get", "names", "registry"]

registry = Registry(__name__, "source")


def names(want: str | None = None) -> list[str]:
    """List every source, or those that `want` (model, tokenizer, data) can come from."""
    return [name for name in registry.names() if want is None or want in get(name).wants]


@cache
def get(name: str) -> type[Source]:
    """Import the source whose key in YAML is `name` (`hub`, `folder`, `file`).

    Raises:
        RecipeError: there is none.
    """
    source: type[Source] = registry.implementation(name, Source)
    return source


def find(name: str, fields: Mapping[str, object]) -> Source:
    """Build the source `name` with the fields that a recipe gives it."""
    return get(name)(**fields)
