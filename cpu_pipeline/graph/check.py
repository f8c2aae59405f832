"""Check the file of a recipe or of a pipeline, and what it names on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Outside
from cpu_pipeline.graph.precheck import Checked, cautions, precheck
from cpu_pipeline.recipe import document, reader

RECIPE_KEYS = frozenset({"model", "task", "data", "pipeline"})
"""Keys that only recipes have."""


@dataclass(frozen=True)
class CheckResult:
    """What a check of one file found besides errors."""

    outside: tuple[Outside, ...] = ()
    """The paths that lead out of the recipe's directory."""
    unread: tuple[str, ...] = ()
    """Models and rows that were not looked at, each with the reason."""
    warnings: tuple[str, ...] = ()
    """What a build does, though it cannot show much, each with the step."""


def check(
    path: Path, allow_paths: Iterable[Path] = (), *, recipe_only: bool = False, thorough: bool = False
) -> CheckResult:
    """Check a file: its schema, its options, that its steps fit together, and the models and rows that it names.

    Args:
        path: the file of a recipe or of a pipeline.
        allow_paths: directories outside its own that a recipe may read.
        recipe_only: look at no model and no rows.
        thorough: compare tokenization with transformers' own, too, which takes seconds.

    Raises:
        PipelineError: every problem, one a line, of the class that a build would meet first.
        Refused: a path leads out of the recipe's directory, neither allowed nor marked with `outside: true`.
    """
    written = document.read_document(path).value if path.exists() else {"model": None}
    if not (isinstance(written, Mapping) and written.keys() & RECIPE_KEYS):
        planner.check_pipeline(reader.load_pipeline_file(path))
        return CheckResult()
    plan = planner.make_plan(reader.load_recipe(path, allow_paths, shows_outside=True))
    found = Checked((), (), tuple(cautions(plan))) if recipe_only else precheck(plan, advises=True, thorough=thorough)
    found.require()
    return CheckResult(plan.outside, found.unread, found.warnings)
