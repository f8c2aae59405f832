"""The table of how many rows a gate needs, for docs/gates.md."""

from __future__ import annotations

from cpu_pipeline.core.markdown import table as rows_of
from cpu_pipeline.runtime.rows_needed import read_table


def table() -> str:
    """Write the rows needed for each allowed drop and share of flips as a table."""
    found = read_table()
    headings = ("of the rows flip", *(f"`max_drop` {drop:g}" for drop in found["drops"]))
    lines = [
        (f"{flips:.1%}", *(f"{rows:,}" for rows in line))
        for flips, line in zip(found["flips"], found["rows"], strict=True)
    ]
    return "\n".join(rows_of(headings, lines)) + "\n"
