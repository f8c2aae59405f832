"""The loop of the commands that take several recipes: the next recipe, going on after a failure, the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cpu_pipeline.core.errors import Interrupted, PartlyDone, PipelineError

T = TypeVar("T")


def each_recipe(
    recipes: Sequence[T],
    handle: Callable[[T], int],
    *,
    report: Callable[[T, PipelineError], int] | None = None,
    keep_going: bool = False,
) -> int:
    """Handle one recipe after another, and return the exit code of the command.

    Args:
        recipes: what is handled.
        handle: does the work for one recipe, and returns its exit code.
        report: called with an error of `handle`; returns the recipe's exit code. The error ends the command when None.
        keep_going: go on with the next recipe after one that failed.

    Returns:
        0 when all succeeded, 6 when some did and `keep_going` is set, else the exit code of the first failure.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; no further recipe is handled.
    """
    failures: list[int] = []
    for recipe in recipes:
        try:
            code = handle(recipe)
        except Interrupted:
            raise
        except PipelineError as error:
            if report is None:
                raise
            code = report(recipe, error)
        if code:
            failures.append(code)
            if not keep_going:
                break
    if not failures:
        return 0
    return PartlyDone.exit_code if keep_going and len(failures) < len(recipes) else failures[0]
