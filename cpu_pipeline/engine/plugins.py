"""What plug-ins are made of: distribution, version and a digest of their code, for keys and manifests.

A stage of ours is known by its `version`, which a test makes us raise. Nobody raises that of a plug-in for certain, so
its whole code counts: every file of the packages that its entry points name, of those that they import from outside
site-packages, and the versions of installed distributions that they import.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

from cpu_pipeline.core.artifact import digest_json, digest_resting
from cpu_pipeline.core.registry import OURS, Registry, added_entry_points
from cpu_pipeline.engine.packages import ABSENT, installed

NO_CODE = frozenset({".pyc", ".pyo"})
"""Endings of files that follow from others."""

Plugins = dict[str, dict[str, Any]]
"""Distribution -> its `version`, the digest of its `code`, and the versions of what it `imports`."""


def plugins_of(used: Iterable[tuple[Registry, str]]) -> Plugins:
    """Describe the distributions that added these stages, tasks, backends and sources; empty where all are ours.

    Args:
        used: registry and name of each.
    """
    points = (registry.added(name) for registry, name in used)
    names = sorted({_name(point) for point in points if point is not None})
    return {name: describe(name) for name in names}


def changed(plugins: Mapping[str, Any]) -> list[str]:
    """Name those of the plug-ins in a step's ingredients whose code is another by now."""
    return [name for name, said in plugins.items() if describe(name) != said]


def describe(name: str) -> dict[str, Any]:
    """Describe a distribution with entry points of ours.

    Returns:
        `version`; `code`, the digest of its files; `imports`, distribution -> version, where it imports others.
    """
    points = [point for point in added_entry_points() if _name(point) == name]
    distribution = next((point.dist for point in points if point.dist is not None), None)
    files = _recorded(distribution)
    imports: dict[str, str] = {}
    waiting, seen = [point.module for point in points], set[str]()
    while waiting:
        unit = _unit(waiting.pop())
        if unit in seen or unit.partition(".")[0] == OURS or unit in sys.stdlib_module_names:
            continue
        seen.add(unit)
        owner = None if any(_unit(point.module) == unit for point in points) else _owner(unit)
        if owner not in (None, name) and not _is_local(unit):
            imports[str(owner)] = installed(str(owner))
            continue
        found = _files(unit)
        files |= found
        waiting += [each for path in found.values() if path.suffix == ".py" for each in _imported(path)]
    digests = {file: digest_resting(path) for file, path in sorted(files.items())}
    version = ABSENT if distribution is None else distribution.version
    return {"version": version, "code": digest_json(digests)} | ({"imports": imports} if imports else {})


def _name(point: EntryPoint) -> str:
    return point.module.partition(".")[0] if point.dist is None else point.dist.name


def _recorded(distribution: Distribution | None) -> dict[str, Path]:
    """List the files that a distribution was installed with, where it says so, without its metadata."""
    found = {}
    for file in (distribution.files if distribution is not None else None) or ():
        path = Path(str(file.locate()))
        metadata = file.parts[0] == ".." or file.parts[0].endswith((".dist-info", ".egg-info"))
        if not metadata and file.suffix not in (*NO_CODE, ".pth") and path.is_file():
            found[file.as_posix()] = path
    return found


def _unit(module: str) -> str:
    """Name the package or the module of one file that a module is part of; below namespaces, which hold several."""
    parts = module.split(".")
    for count in range(1, len(parts)):
        name = ".".join(parts[:count])
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return name
        if spec is None or spec.origin is not None:
            return name
    return module


def _places(unit: str) -> list[Path]:
    """List the directories of a package, or the file of a module; nothing for what is built in or absent."""
    try:
        spec = importlib.util.find_spec(unit)
    except (ImportError, ValueError):  # a part of it is absent, or is no package
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def _files(unit: str) -> dict[str, Path]:
    """List the files of a package or module, data and all, by names that do not tell where it is."""
    found = {}
    for place in _places(unit):
        base = place.parents[unit.count(".")] if place.is_dir() else place.parent
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            below = path.relative_to(place).parts
            hidden = any(part == "__pycache__" or part.startswith(".") for part in below)
            if not hidden and path.suffix not in NO_CODE and path.is_file():
                found[path.relative_to(base).as_posix()] = path
    return found


def _is_local(unit: str) -> bool:
    """Say whether a module lies elsewhere than installed packages do: its version does not tell what it is."""
    homes = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    return any(not any(place.is_relative_to(home) for home in homes) for place in _places(unit))


def _owner(unit: str) -> str | None:
    """Name the distribution that a module is of; None where no installed one claims it."""
    top = unit.partition(".")[0]
    if installed(top) != ABSENT:  # most have the name of their module, and looking through all of them is slow
        return top
    return next(iter(_claimed().get(top, ())), None)


@cache
def _claimed() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _imported(path: Path) -> tuple[str, ...]:
    return _imports(path, digest_resting(path))


@lru_cache(maxsize=1024)
def _imports(path: Path, _: str) -> tuple[str, ...]:
    """Name what a file imports from other packages, wherever in it; a file that is no Python imports nothing."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(dict.fromkeys(_named(tree)))


def _named(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
