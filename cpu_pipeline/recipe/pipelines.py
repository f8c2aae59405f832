"""What pipelines there are, and what each needs of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cpu_pipeline import stages
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe import package_data
from cpu_pipeline.recipe.reader import load_pipeline_file
from cpu_pipeline.recipe.spec import Step


@dataclass(frozen=True)
class PipelineInfo:
    """A pipeline, as its file says."""

    name: str
    about: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...]
    """What a recipe must have for it: roles of data, a teacher."""


def find(recipes: Path) -> list[PipelineInfo]:
    """Read every pipeline that a recipe in a directory can name: those beside it, and those of the package.

    Raises:
        RecipeError: one of them is wrong.
    """
    folders = [package_data.folder("pipelines"), recipes.resolve().parent / "pipelines"]
    files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    return [read(path) for _, path in sorted(files.items())]


def read(path: Path) -> PipelineInfo:
    """Read one pipeline's file."""
    pipeline = load_pipeline_file(path).value
    return PipelineInfo(path.stem, pipeline.about, tuple(pipeline.stages), tuple(sorted(_needs(pipeline.stages))))


def one(known: Sequence[PipelineInfo], name: str) -> PipelineInfo:
    """Return the pipeline of a name.

    Raises:
        RecipeError: there is none.
    """
    names = [pipeline.name for pipeline in known]
    if name not in names:
        raise RecipeError(f"there is no pipeline `{name}`{did_you_mean(name, names)}; there are: {', '.join(names)}")
    return known[names.index(name)]


def _needs(steps: Sequence[Step]) -> set[str]:
    """Name what steps cannot do without."""
    found = set[str]()
    for step in steps:
        found |= {"teacher"} if "teacher" in step.sources.values() else set()
        try:
            asks = stages.get(step.use)(**step.options).asks()
        except ValidationError:
            continue  # a required option is the recipe's
        found |= {part for part in asks if part.startswith("data.") and not part.endswith("?")}
    return found
