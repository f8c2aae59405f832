"""Write what stages report (tables of figures, notes) as Markdown; names and text may come from outside: escaped."""

from __future__ import annotations

from collections.abc import Iterable

from cpu_pipeline.core.figures import Note, Table
from cpu_pipeline.core.markdown import escape, table


def blocks(details: Iterable[Table | Note]) -> list[str]:
    """Write tables and notes one after the other, each followed by an empty line."""
    lines: list[str] = []
    for item in details:
        lines += figures(item)[1:] if isinstance(item, Table) else [note(item), ""]
    return lines


def figures(found: Table) -> list[str]:
    """Write a table, with an empty line before and after it; a column that a row lacks is left empty there."""
    rows = []
    for name, cells in found.rows.items():
        shown = {cell.heading: str(cell.quantity) for cell in cells}
        rows.append([escape(name), *(shown.get(heading, "") for heading in found.headings[1:])])
    return table([escape(heading) for heading in found.headings], rows)


def note(found: Note) -> str:
    """Write a note on one line; a warning is in bold."""
    return f"**{escape(found.text)}**" if found.warning else escape(found.text)
