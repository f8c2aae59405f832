"""The first page of help: commands in groups, then examples."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

EXAMPLES = """\
Examples:
  cpu-pipeline init ./model --data rows.csv   a first recipe for a model of yours
  cpu-pipeline check model.yaml               what a build would refuse
  cpu-pipeline run model.yaml                 build, compare, publish
  cpu-pipeline run quickstart                 the recipe that comes with the package
  cpu-pipeline tasks text-classification      columns, metrics and options of a task
"""


class GroupedCommands(TyperGroup):
    """A group of commands whose help has a section for each `rich_help_panel`, in the order of the commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of commands."""
        sections: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                sections.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, command))
        width = max(len(name) for commands in sections.values() for name, _ in commands)
        for title, commands in sections.items():
            with formatter.section(title):
                limit = formatter.width - 6 - width
                rows = [(name.ljust(width), command.get_short_help_str(limit)) for name, command in commands]
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are."""
        formatter.write("\n" + EXAMPLES)
