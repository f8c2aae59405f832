"""The outcomes of refreshes as Markdown, for the summary page of a CI job. Outside text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpu_pipeline.core.markdown import code, escape, table


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Write a table of all recipes, and the details of each below it."""
    lines = ["## Refresh"]
    lines += table(
        ("recipe", "outcome", "in service", "steps built", "cached"),
        (
            (
                escape(result["recipe"]),
                f"**{result['outcome']}**" if result["exit_code"] else escape(result["outcome"]),
                _service(result),
                str(result["built"]),
                str(result["cached"]),
            )
            for result in results
        ),
    )
    for result in results:
        lines += _details(result)
    # The names of files need not be UTF-8; the page has to be.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode() + "\n"


def _service(result: Mapping[str, Any]) -> str:
    before, now = result["version_before"], result["version"]
    if now is None:
        return "nothing"
    return code(now) if before in (None, now) else f"{code(before)} → {code(now)}"


def _details(result: Mapping[str, Any]) -> list[str]:
    points = [f"because {escape(line)}" for line in result["causes"]]
    points += [f"not reacted to: {escape(line)}" for line in result["ignored"]]
    points += [f"**failed** {escape(line)}" for line in result["failed"]]
    points += [f"{code(gate)}: {escape(line)}" for gate, found in result["changes"].items() for line in found]
    points += [f"warning: {escape(line)}" for line in result["warnings"]]
    if result["outcome"] == "failed":
        points.append(f"**error**: {escape(result['says'])}")
    if not points:
        return []
    return [f"### {escape(result['recipe'])}", "", *(f"- {point}" for point in points), ""]
