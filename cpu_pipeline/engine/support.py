"""Every way to run a model on a CPU that there is here: what it takes, what it stands on, whether it works."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cpu_pipeline import backends, stages, tasks
from cpu_pipeline.core import hub_api as hub
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.engine import environments, packages
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.recipe import reader
from cpu_pipeline.stages._base import Stage

Takes = Literal["yes", "no", "untried"]


@dataclass(frozen=True)
class Model:
    """What there is to know of a model before it is loaded."""

    kind: str
    """model_type of its config.json."""
    format: str


@dataclass(frozen=True)
class BackendSupport:
    """One format, with the backend that runs it and the stages that make it."""

    format: str
    about: str
    stages: tuple[str, ...]
    precisions: tuple[str, ...]
    tasks: tuple[str, ...]
    architectures: tuple[str, ...]
    others: str
    """Whether architectures beyond these are refused or untried."""
    environment: str
    packages: Mapping[str, str]
    """Distribution -> version, as its environment has it or would."""
    status: str
    """How it stands upstream."""
    lacks: tuple[str, ...]
    """What is not on this machine; empty where it works."""

    def takes(self, model: Model) -> tuple[Takes, str]:
        """Say whether it takes a model, and why not."""
        if model.format != "hf" and model.format != self.format:
            return "no", f"the model is {model.format} already; ways from a checkpoint need the checkpoint"
        if model.format == self.format or model.kind in self.architectures:
            return "yes", ""
        if self.others == "refused":
            return "no", f"{model.kind} is not one of {', '.join(self.architectures)}"
        return "untried", f"no test of ours builds {model.kind}; the stage compares its answers with the original's"


def ways() -> list[BackendSupport]:
    """List every way."""
    makers: dict[str, list[str]] = {}
    for name in stages.names():
        for made in formats_made(stages.get(name)):
            makers.setdefault(made, []).append(name)
    return [_way(name, tuple(makers.get(name, ()))) for name in backends.names()]


def _way(name: str, stages: tuple[str, ...]) -> BackendSupport:
    backend = backends.get(name)
    where = backend.ENVIRONMENT
    lacks = packages.missing(backend.PACKAGES, where)
    if where != DEFAULT and not environments.read(where).ready:
        lacks = [f"the environment `{where}`"]
    return BackendSupport(
        format=name,
        about=(inspect.getdoc(backend) or "").splitlines()[0],
        stages=stages,
        precisions=backend.PRECISIONS,
        tasks=tuple(tasks.names()),
        architectures=tuple(sorted(backend.ARCHITECTURES)),
        others="refused" if backend.ONLY else "untried",
        environment=where,
        packages={package: packages.installed(package, where) for package in backend.PACKAGES},
        status=backend.STATUS,
        lacks=tuple(lacks),
    )


def formats_made(stage: type[Stage]) -> set[str]:
    """Name the formats that a stage gives: by default, and with each choice of an option called `format`."""
    field = stage.model_fields.get("format")
    choices = getattr(field.annotation, "__args__", ()) if field is not None else ()
    try:
        return {stage(**given).gives() for given in [{"format": choice} for choice in choices] or [{}]}
    except ValidationError:
        return set()  # a stage whose options have no defaults is not how a format begins


def model(name: str) -> Model:
    """Look at the model of a recipe, or of a repository of the Hub.

    Raises:
        RecipeError: there is no such recipe or repository, or it has no config.json that tells the architecture.
    """
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file() or "/" not in name:
        recipe = reader.load_recipe(Path(name))
        return _look(recipe.value.model, recipe.path.parent)
    return _look({"hub": name, "revision": hub.resolve(name, "model")}, Path())


def _look(place: Mapping[str, Any], base: Path) -> Model:
    if "hub" in place:
        where = f"{place['hub']} at {place['revision'][:12]}"
        text = hub.read_small(place["hub"], "model", place["revision"], "config.json")
    else:
        file = base / place["folder"] / "config.json"
        where = str(file.parent)
        text = file.read_text(encoding="utf-8") if file.is_file() else None
    try:
        kind = json.loads(text or "{}").get("model_type")
    except ValueError:
        kind = None
    if not isinstance(kind, str):
        raise RecipeError(f"{where}: no config.json there tells `model_type`; name a transformers model")
    return Model(kind, str(place.get("format", "hf")))
