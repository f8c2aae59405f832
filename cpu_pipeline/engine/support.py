"""The support matrix: each backend with its models, packages and environment, and whether it works on this machine."""

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
from cpu_pipeline.core.repo_files import format_of
from cpu_pipeline.engine import environments, packages
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.recipe import reader
from cpu_pipeline.stages._base import Stage

Takes = Literal["yes", "no", "untried"]


@dataclass(frozen=True)
class Model:
    """What is known of a model before it is loaded."""

    kind: str
    """model_type of its config.json."""
    format: str


@dataclass(frozen=True)
class BackendSupport:
    """One format, with the backend that runs it and the stages that write it."""

    format: str
    """Format of artifacts."""
    about: str
    """How it is run, in one line."""
    stages: tuple[str, ...]
    """Stages that write the format."""
    precisions: tuple[str, ...]
    """Types that its artifacts can compute in."""
    tasks: tuple[str, ...]
    """Tasks that it can run."""
    architectures: tuple[str, ...]
    """`model_type`s that tests build and compare."""
    others: str
    """Whether architectures beyond these are refused or untried."""
    environment: str
    """Environment with its packages."""
    packages: Mapping[str, str]
    """Distribution -> version in its environment, which need not be installed."""
    status: str
    """Whether its upstream is maintained."""
    lacks: tuple[str, ...]
    """What is missing on this machine; empty where the backend works."""

    def takes(self, model: Model) -> tuple[Takes, str]:
        """Say whether the backend runs a model, and if not, why."""
        if model.format != "hf" and model.format != self.format:
            return "no", f"the model is {model.format} already; backends for a checkpoint need the checkpoint"
        if model.format == self.format or model.kind in self.architectures:
            return "yes", ""
        if self.others == "refused":
            return "no", f"{model.kind} is not one of {', '.join(self.architectures)}"
        return "untried", f"no test of ours builds {model.kind}; the stage compares its answers with the original's"


def backend_support() -> list[BackendSupport]:
    """Describe every backend."""
    makers: dict[str, list[str]] = {}
    for name in stages.names():
        for format in formats_of(stages.get(name)):
            makers.setdefault(format, []).append(name)
    return [_support(name, tuple(makers.get(name, ()))) for name in backends.names()]


def _support(name: str, stages: tuple[str, ...]) -> BackendSupport:
    backend = backends.get(name)
    environment = backend.ENVIRONMENT
    lacks = packages.missing(backend.PACKAGES, environment)
    if environment != DEFAULT and not environments.get(environment).ready:
        lacks = [f"the environment `{environment}`"]
    return BackendSupport(
        format=name,
        about=(inspect.getdoc(backend) or "").splitlines()[0],
        stages=stages,
        precisions=backend.PRECISIONS,
        tasks=tuple(tasks.names()),
        architectures=tuple(sorted(backend.ARCHITECTURES)),
        others="refused" if backend.ONLY else "untried",
        environment=environment,
        packages={package: packages.installed(package, environment) for package in backend.PACKAGES},
        status=backend.STATUS,
        lacks=tuple(lacks),
    )


def formats_of(stage: type[Stage]) -> set[str]:
    """Name the formats that a stage writes: by default, and with each choice of an option called `format`."""
    field = stage.model_fields.get("format")
    choices = getattr(field.annotation, "__args__", ()) if field is not None else ()
    try:
        return {stage(**options).gives() for options in [{"format": choice} for choice in choices] or [{}]}
    except ValidationError:
        return set()  # a stage with a required option is not the first to write a format


def model(name: str) -> Model:
    """Describe the model of a recipe, of a folder, or of a repository of the Hub, by its config.json.

    Raises:
        RecipeError: the recipe or repository does not exist, or has no config.json with a `model_type`.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        names = [path.name for path in folder.iterdir()]
        return _describe({"folder": folder, "format": format_of(names)}, Path())
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file() or "/" not in name:
        recipe = reader.load_recipe(Path(name))
        return _describe(recipe.value.model, recipe.path.parent)
    return _describe({"hub": name, "revision": hub.resolve(name, "model")}, Path())


def _describe(source: Mapping[str, Any], base: Path) -> Model:
    if "hub" in source:
        location = f"{source['hub']} at {source['revision'][:12]}"
        text = hub.read_small(source["hub"], "model", source["revision"], "config.json")
    else:
        file = base / source["folder"] / "config.json"
        location = str(file.parent)
        text = file.read_text(encoding="utf-8") if file.is_file() else None
    try:
        kind = json.loads(text or "{}").get("model_type")
    except ValueError:
        kind = None
    if not isinstance(kind, str):
        raise RecipeError(f"{location}: no config.json with a `model_type`; name a transformers model")
    return Model(kind, str(source.get("format", "hf")))
