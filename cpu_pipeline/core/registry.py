"""Find the modules of one package by name. The file tree is the registry; entry points add those of plug-ins."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean

OURS = "cpu_pipeline"


class Registry:
    """The modules of one package, by the names that recipes use; imports each at its first use.

    Args:
        package: full name of the package, which is also the group of entry points that add to it.
        kind: what one of its modules is called in messages.
        separator: what stands in a recipe's name for the `_` of a file's name.
    """

    def __init__(self, package: str, kind: str, separator: str = "_") -> None:
        self.package, self.kind, self.separator = package, kind, separator
        self._modules: dict[str, str] | None = None

    def names(self) -> list[str]:
        """List every name."""
        return sorted(self.modules())

    def modules(self) -> dict[str, str]:
        """Map each name to its module by walking file names; imports nothing but the folders."""
        if self._modules is None:
            prefix = self.package + "."
            own = {
                found.name.removeprefix(prefix): found.name
                for found in pkgutil.walk_packages(importlib.import_module(self.package).__path__, prefix)
                if not found.ispkg and "._" not in found.name.removeprefix(self.package)
            }
            added = {point.name: point.value for point in entry_points(self.package)}
            self._modules = {self._spelled(name): module for name, module in (own | added).items()}
        return self._modules

    def added(self, name: str) -> importlib.metadata.EntryPoint | None:
        """Return the entry point with which another distribution adds this name; None where it is ours."""
        found = (point for point in entry_points(self.package) if self._spelled(point.name) == name)
        return next(found, None)

    def _spelled(self, name: str) -> str:
        return name.replace("_", self.separator)

    def module(self, name: str) -> ModuleType:
        """Import the module of this name.

        Raises:
            RecipeError: no module has this name; the message lists the known names.
        """
        known = self.modules()
        if name not in known:
            names = ", ".join(sorted(known))
            raise RecipeError(f"no {self.kind} is called `{name}`{did_you_mean(name, known)}; there are: {names}")
        return importlib.import_module(known[name])

    def implementation(self, name: str, base: type[Any]) -> Any:
        """Return the one class in the module of this name that implements `base`."""
        module = self.module(name)
        own = [value for value in vars(module).values() if isinstance(value, type)]
        [found] = [
            cls
            for cls in own
            if cls.__module__ == module.__name__
            and issubclass(cls, base)
            and not getattr(cls, "__abstractmethods__", None)
        ]
        return found


def entry_points(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """List what other distributions add to a group, such as `cpu_pipeline.stages`."""
    return tuple(point for point in added_entry_points() if point.group == group)


@cache
def added_entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    """List what other distributions add to any group of ours; of two with one name, the first on the path counts.

    Only those that name us are parsed: of hundreds of distributions hardly any does, and each command asks.
    """
    found: dict[str, tuple[importlib.metadata.EntryPoint, ...]] = {}
    for distribution in importlib.metadata.distributions():
        if f"{OURS}." in (distribution.read_text("entry_points.txt") or ""):
            found.setdefault(distribution.name, tuple(distribution.entry_points))
    return tuple(point for points in found.values() for point in points if point.group.startswith(f"{OURS}."))
