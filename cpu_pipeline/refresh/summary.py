"""What refreshes came to, as Markdown: for the summary page of a CI job. Outside text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpu_pipeline.core.markdown import code, escape, table


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Write a table of all recipes, and below it what there is to say of each."""
    lines = ["## Refresh"]
    lines += table(
        ("recipe", "outcome", "in service", "steps built", "kept"),
        (
            (
                escape(one["recipe"]),
                f"**{one['outcome']}**" if one["exit_code"] else escape(one["outcome"]),
                _service(one),
                str(one["built"]),
                str(one["kept"]),
            )
            for one in results
        ),
    )
    for one in results:
        lines += _details(one)
    # The names of files need not be UTF-8; the page has to be.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode() + "\n"


def _service(one: Mapping[str, Any]) -> str:
    before, now = one["version_before"], one["version"]
    if now is None:
        return "nothing"
    return code(now) if before in (None, now) else f"{code(before)} → {code(now)}"


def _details(one: Mapping[str, Any]) -> list[str]:
    points = [f"because {escape(says)}" for says in one["causes"]]
    points += [f"not reacted to: {escape(says)}" for says in one["ignored"]]
    points += [f"**failed** {escape(says)}" for says in one["failed"]]
    points += [f"{code(gate)}: {escape(says)}" for gate, found in one["changes"].items() for says in found]
    points += [f"warning: {escape(says)}" for says in one["warnings"]]
    if one["outcome"] == "failed":
        points.append(f"**{escape(one['error'])}**: {escape(one['says'])}")
    if not points:
        return []
    return [f"### {escape(one['recipe'])}", "", *(f"- {point}" for point in points), ""]
