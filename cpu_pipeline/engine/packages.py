"""Versions of installed distributions, in the default environment and in others."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT

ABSENT = "not installed"


def made_with(needed: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """Name the distributions and environments in a step's ingredients: its own and those of its backends.

    Args:
        needed: the ingredients (see `keys.ingredients`).

    Returns:
        The distributions of the default environment with their versions, plug-ins' own included, and the names of the
        other environments.
    """
    packages: dict[str, str] = {}
    for name, plugin in needed.get("plugins", {}).items():
        packages |= {name: plugin["version"], **plugin.get("imports", {})}
    others = set[str]()
    for part in (needed, *needed.get("backends", {}).values()):
        if part.get("environment", DEFAULT) == DEFAULT:
            packages |= part.get("packages", {})
        else:
            others.add(part["environment"]["name"])
    return packages, others


@cache
def installed(distribution: str, environment: str = DEFAULT) -> str:
    """Return a distribution's version in an environment (other environments: that of their pins), or `ABSENT`."""
    if environment != DEFAULT:
        return environments.get(environment).pins.get(environments.normal(distribution), ABSENT)
    try:
        return _version(importlib.metadata.distribution(distribution))
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def _version(distribution: importlib.metadata.Distribution) -> str:
    """Read the version alone: parsing all of the metadata takes longer than the rest of a build that is cached."""
    for line in (distribution.read_text("METADATA") or "").splitlines():
        if line.lower().startswith("version:"):
            return line.partition(":")[2].strip()
    return distribution.version


def missing(names: Sequence[str], environment: str = DEFAULT) -> list[str]:
    """Name the distributions that an environment lacks."""
    return sorted(name for name in names if installed(name, environment) == ABSENT)
