"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cpu_pipeline.store.local import Store

Recipes = Annotated[list[Path], typer.Argument(help="Recipe files, or the bare name of a shipped one (quickstart).")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Directory of cached steps [env: CPU_PIPELINE_STORE].")
]
RemoteOption = Annotated[
    str | None,
    typer.Option(
        "--store-remote", metavar="URL", envvar="CPU_PIPELINE_STORE_REMOTE",
        help="Another store, a folder or any fsspec address: read for what is not cached here, never written.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="STEP.OPTION=VALUE",
        help="Set one option of a step, or of data (data.validation.take=50); may be repeated.",
    ),
]  # fmt: skip
Until = Annotated[
    str | None,
    typer.Option(metavar="STEP", help="Stop at this step, and put it into NAME/until/STEP/; nothing is promoted."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="ROWS",
        help="Try the recipe on at most so many rows of each role, into NAME/trial/; nothing is promoted.",
    ),
]  # fmt: skip
Skip = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GATE", help="Leave out a gate; may be repeated. Goes into NAME/unchecked/; nothing is promoted."
    ),
]
NoMeasure = Annotated[
    bool,
    typer.Option("--no-measure", help="Leave out what measures time, as --skip does; nothing is promoted."),
]
AllowPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-path", metavar="DIR",
        help="Let the recipe read this directory or file outside its own folder; may be repeated "
        "[env: CPU_PIPELINE_ALLOW_PATH].",
    ),
]  # fmt: skip


def open_store(path: Path | None, remote: str | None = None) -> Store:
    """Open the store that was named, or the user's own, with the remote one to look into; nothing is read yet."""
    from cpu_pipeline.store.local import Store, default_root

    if remote is None:
        return Store(path or default_root())
    from cpu_pipeline.store.remote.client import Remote

    return Store(path or default_root(), Remote(remote, warn, lenient=True))


def require_own_names(recipes: Sequence[Path]) -> None:
    """Refuse recipes of one name in one call: each would take the other's artifacts out of service.

    Raises:
        RecipeError: names both.
    """
    from cpu_pipeline.core.errors import RecipeError

    seen: dict[str, Path] = {}
    for path in recipes:
        other = seen.setdefault(path.stem, path)
        if other.absolute() != path.absolute():
            raise RecipeError(f"{path}: {other} has the same name, and both would be artifacts/{path.stem}; rename one")


def warn(message: str) -> None:
    """Warn of something that does not stop the command."""
    from cpu_pipeline.cli.output import patient, plain

    with patient(sys.stderr):
        print(plain(f"warning   {message}"), file=sys.stderr, flush=True)


def parse_sets(sets: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Read `step.option=value`; the value is read as YAML."""
    from cpu_pipeline.core.errors import RecipeError
    from cpu_pipeline.recipe.document import parse

    found: dict[str, dict[str, Any]] = {}
    for text in sets or ():
        name, equals, value = text.partition("=")
        step, dot, option = name.rpartition(".") if name.startswith("data.") else name.partition(".")
        if not (equals and dot and step and option) or step == "data":
            raise RecipeError(f"--set {text}: write it as STEP.OPTION=VALUE, or data.ROLE.OPTION=VALUE")
        found.setdefault(step, {})[option] = parse(value, Path(f"--set {name}")).value
    return found
