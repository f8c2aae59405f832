"""`cpu-pipeline docs`: check that generated documentation is up to date, or write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCUMENTS = (Path("docs", "reproducible.md"), Path("docs", "gates.md"))
"""Documents with generated blocks, beside the pages that are generated whole."""


def docs(
    context: typer.Context,
    write: Annotated[bool, typer.Option("--write", help="Write the files.")] = False,
    path: Annotated[
        list[Path] | None, typer.Option(help="One file; without it all of this clone. It may be repeated.")
    ] = None,
) -> int:
    """Check that the generated files of docs/ are up to date (exit 5 otherwise), or write them."""
    expected = _expected(path, context.find_root().command)
    stale = [file for file, text in expected.items() if text != _text(file)]
    for file in stale:
        if write:
            _write(file, expected[file])
        else:
            typer.echo(f"{file}: out of date; run `cpu-pipeline docs --write`", err=True)
    return 0 if write or not stale else 5


def filled(text: str) -> str:
    """Return the text with each block `<!-- generated: NAME -->` written again."""
    from cpu_pipeline.cli._reference import rows_needed, stages

    blocks: Mapping[str, Callable[[], str]] = {
        "reproducible": stages.reproducible_table,
        "rows_needed": rows_needed.table,
    }
    return _BLOCK.sub(lambda match: match[1] + blocks[match[2]]() + match[3], text)


def _expected(paths: list[Path] | None, root: Any) -> dict[Path, str | None]:
    """Return the text that each file should have; None for one that should not exist."""
    from cpu_pipeline.cli import _reference

    pages = _reference.pages(root)
    if paths is None:
        paths = [*pages, *_reference.SCHEMAS.glob("*.json"), *DOCUMENTS]
    return {path: _of(path, pages) for path in paths}


def _of(path: Path, pages: Mapping[Path, str]) -> str | None:
    from cpu_pipeline.cli._reference import SCHEMAS

    page = next((text for name, text in pages.items() if path.absolute() == name.absolute()), None)
    if page is not None or path.absolute().parent == SCHEMAS.absolute():
        return page
    return filled(path.read_text(encoding="utf-8"))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
