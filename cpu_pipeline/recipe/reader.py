"""Find, read and check the files of recipes and pipelines; every problem names its line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.registry import entry_points
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe import package_data
from cpu_pipeline.recipe.document import Document, Keys, Problem, read_document
from cpu_pipeline.recipe.explain import explain
from cpu_pipeline.recipe.fits import fits
from cpu_pipeline.recipe.spec import Pipeline, Recipe
from cpu_pipeline.tasks import canonical

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


T = TypeVar("T", Recipe, Pipeline)
ALLOW_PATH = "CPU_PIPELINE_ALLOW_PATH"
"""Variable with directories that every recipe of this user may read."""


class RecipeFile(Generic[T]):
    """A recipe or a pipeline, with the document that it was read from."""

    value: T

    def __init__(
        self,
        document: Document,
        value: T,
        sets: Mapping[str, Mapping[str, Any]] | None = None,
        allowed: Sequence[Path] | None = None,
        *,
        shows_outside: bool = False,
        as_written: RecipeFile[T] | None = None,
        given: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.as_written: RecipeFile[T] | None = as_written
        """The recipe without the options of the command line; None where none was given."""
        self.given = given or {}
        """Every option of the command line: step id, or `data.ROLE` -> option -> value."""
        self.document, self.value = document, value
        self.sets = sets or {}
        """Options of the command line: step id -> option -> value."""
        self.allowed = allowed_by_environment() if allowed is None else tuple(allowed)
        """Directories outside its own that the user lets the recipe read."""
        self.shows_outside = shows_outside
        """True where a path that the recipe marks with `outside: true` may be planned before the user allows it,
        because nothing will read it."""

    @property
    def path(self) -> Path:
        return self.document.path

    @property
    def name(self) -> str:
        return self.path.stem


def allowed_by_environment() -> tuple[Path, ...]:
    """Return the directories of CPU_PIPELINE_ALLOW_PATH, which are separated as those of PATH."""
    return tuple(Path(text) for text in os.environ.get(ALLOW_PATH, "").split(os.pathsep) if text)


def load_recipe(path: Path, allow_paths: Iterable[Path] = (), *, shows_outside: bool = False) -> RecipeFile[Recipe]:
    """Read and check a recipe.

    Args:
        path: a file, or the bare name of a recipe that the package ships.
        allow_paths: directories outside its own that it may read, besides those of the environment.
        shows_outside: let a path that the recipe marks with `outside: true` be planned, because nothing will read it.

    Raises:
        RecipeError: every problem, one a line, as `file:line:column: path: what is wrong`.
    """
    read = recipe_of(read_document(_recipe_path(path)))
    allowed = (*read.allowed, *allow_paths)
    return RecipeFile(read.document, read.value, allowed=allowed, shows_outside=shows_outside)


def recipe_of(document: Document) -> RecipeFile[Recipe]:
    """Check a document as a recipe.

    Raises:
        RecipeError: every problem, as `load_recipe`.
    """
    check_schema(document, "Recipe")
    written = dict(document.value)
    use = {"use": written["task"]} if isinstance(written["task"], str) else written["task"]
    written["task"] = {**use, "use": canonical(use["use"])}
    return RecipeFile(document, Recipe.model_validate(written))


def load_pipeline(name: str, recipe: Document) -> RecipeFile[Pipeline]:
    """Read a pipeline: from pipelines/ beside the recipe's folder, then from the installed package."""
    folders = [recipe.path.resolve().parent.parent / "pipelines", package_data.folder("pipelines")]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return load_pipeline_file(folder / f"{name}.yaml")
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    message = f"there is no pipeline `{name}`{did_you_mean(name, known)}; there are: {', '.join(known)}"
    raise recipe.error([Problem(("pipeline",), message)])


def load_pipeline_file(path: Path) -> RecipeFile[Pipeline]:
    """Read and check one pipeline file."""
    document = read_document(path)
    check_schema(document, "Pipeline")
    return RecipeFile(document, Pipeline.model_validate(document.value))


def _recipe_path(path: Path) -> Path:
    """Find a recipe by path, or a recipe of the package by its bare name (`quickstart`)."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:  # locks, manifests, roots and reports name it, and all of them are UTF-8
        message = "the path of a recipe has to be UTF-8; rename what is not"
        raise RecipeError(f"{path.absolute()}: {message}") from error
    if path.exists() or path.suffix or len(path.parts) != 1:
        if not path.exists():
            known = sorted(p.name for p in path.parent.glob("*.yaml"))
            raise RecipeError(
                f"{path}: no such file{did_you_mean(path.name, known)}"
                + (f"; there are: {', '.join(known)}" if known else "")
            )
        return path
    shipped_path = package_data.folder("recipes") / f"{path.name}.yaml"
    if shipped_path.is_file():
        return shipped_path
    known = sorted(p.stem for p in package_data.folder("recipes").glob("*.yaml"))
    raise RecipeError(f"{path}: no such file, and no recipe of that name is shipped; shipped are: {', '.join(known)}")


def check_schema(document: Document, kind: str) -> None:
    """Check a document against schema.json; steps against the branch of their own stage."""
    schema = the_schema()
    definitions = {**schema["definitions"], "Step": _without_branches(schema["definitions"]["Step"])}
    if fits(definitions[kind], document.value, definitions) and not _unfit_steps(document.value, definitions):
        return
    from jsonschema import Draft7Validator

    checker = Draft7Validator({**schema, **_bare(schema, kind)})
    problems = [*_problems(checker, document.value, ()), *_check_steps(document.value, schema)]
    if problems:
        raise document.error(_with_source(problem, document.value) for problem in problems)


def _problems(checker: Validator, value: Any, keys: Keys) -> Iterator[Problem]:
    """Explain every error; of a value of the wrong type, only that."""
    errors = list(checker.iter_errors(value))
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    for error in errors:
        if error.validator == "type" or tuple(error.absolute_path) not in mistyped:
            yield from explain(error, keys)


def _with_source(problem: Problem, root: Any) -> Problem:
    """Name the repository in the command that pins its branch; answer a bare name with the ways to write a source."""
    parent, value = None, root
    for key in problem.keys:
        parent, value = value, value[key] if not isinstance(value, dict) or key in value else None
    if isinstance(value, str) and "must be keys and values" in problem.says and _is_source(problem.keys):
        return replace(problem, says=_two_ways(value, data=problem.keys[0] == "data"))
    if isinstance(parent, dict) and isinstance(parent.get("hub"), str):
        name = parent["hub"] + (" --data" if problem.keys[0] == "data" else "")
        return replace(problem, says=problem.says.replace("OWNER/NAME", name))
    return problem


def _is_source(keys: Keys) -> bool:
    return keys in (("model",), ("teacher",), ("tokenizer",)) or (keys[0] == "data" and len(keys) == 2)


def _two_ways(name: str, *, data: bool) -> str:
    """Write the ways to name a source, for somebody who wrote its name alone."""
    hub = f'{{hub: {name}, revision: "..."{", split: validation" if data else ""}}}'
    local = f"{{{'file' if data else 'folder'}: {name}}}"
    pin = f"`cpu-pipeline pin {name}{' --data' if data else ''}` prints its revision"
    return f"`{name}` does not say where it is; write `{hub}` for the Hub ({pin}), or `{local}` for this machine"


def _bare(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the schema of one kind of file, without the branches for each stage, which `_check_steps` looks up.

    jsonschema tries every branch of every step: 2,000 steps would take seconds.
    """
    definitions = dict(schema["definitions"])
    definitions["Step"] = _without_branches(definitions["Step"])
    return {"definitions": definitions, "allOf": [], "if": True, "then": definitions[kind], "else": True}


def _without_branches(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "allOf"}


def _unfit_steps(value: Any, definitions: Mapping[str, Any]) -> bool:
    """Say whether options of a step do not fit its stage."""
    return any(
        not fits(definitions.get(f"stage.{step['use']}", True), step["with"], definitions)
        for step in value.get("stages") or ()
        if "with" in step
    )


def _check_steps(value: Any, schema: Mapping[str, Any]) -> Iterator[Problem]:
    from jsonschema import Draft7Validator

    steps = value.get("stages") if isinstance(value, dict) else None
    checkers: dict[str, Draft7Validator] = {}
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        use = step.get("use") if isinstance(step, dict) else None
        branch = schema["definitions"].get(f"stage.{use}") if isinstance(use, str) else None
        if branch is None or "with" not in step:
            continue
        checker = checkers.setdefault(str(use), Draft7Validator({**branch, "definitions": schema["definitions"]}))
        yield from _problems(checker, step["with"], ("stages", number, "with"))


def check_options(use: str, options: Mapping[str, Any], keys: Keys) -> list[Problem]:
    """Check options of a stage that a recipe or the command line sets over those of the pipeline.

    Args:
        use: the stage.
        options: option -> value.
        keys: where the options are, for messages.
    """
    if not options:
        return []
    schema = the_schema()
    branch = {**schema["definitions"][f"stage.{use}"]}
    branch.pop("required", None)
    if fits(branch, dict(options), schema["definitions"]):
        return []
    from jsonschema import Draft7Validator

    branch = {**schema["definitions"][f"stage.{use}"], "definitions": schema["definitions"]}
    branch.pop("required", None)
    return list(_problems(Draft7Validator(branch), dict(options), keys))


@cache
def the_schema() -> dict[str, Any]:
    """Return schema.json of the package; computed when other distributions add stages, tasks or sources."""
    if any(entry_points(f"cpu_pipeline.{kind}") for kind in ("stages", "tasks", "sources")):
        from cpu_pipeline.recipe.json_schema import schema

        return schema()
    loaded: dict[str, Any] = json.loads(package_data.file("schema.json").read_text(encoding="utf-8"))
    return loaded
