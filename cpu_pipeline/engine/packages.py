"""Versions of installed distributions, here and in other environments."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT

ABSENT = "not installed"


def made_with(needed: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    """Name what a step's ingredients say that it and its backends ran on.

    Returns the distributions of the default environment with their versions, and the other environments' names.
    """
    packages: dict[str, str] = {}
    places = set[str]()
    for said in (needed, *needed.get("backends", {}).values()):
        if said.get("environment", DEFAULT) == DEFAULT:
            packages |= said.get("packages", {})
        else:
            places.add(said["environment"]["name"])
    return packages, places


@cache
def installed(distribution: str, where: str = DEFAULT) -> str:
    """Return a distribution's version in an environment, made or not, or say that there is none."""
    if where != DEFAULT:
        return environments.get(where).pins.get(environments.normal(distribution), ABSENT)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def missing(names: Sequence[str], where: str = DEFAULT) -> list[str]:
    """Name the distributions that an environment has not."""
    return sorted(name for name in names if installed(name, where) == ABSENT)
