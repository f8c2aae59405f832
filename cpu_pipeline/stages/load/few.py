"""Read a few rows of a data role, for a quick trial of a recipe."""

from __future__ import annotations

from pydantic import Field

from cpu_pipeline.stages.load.rows import LoadRows


class LoadFew(LoadRows):
    """Read at most so many of the rows that the recipe names, spread over them."""

    most: int = Field(ge=1)
    """Rows to read at most."""

    def taken(self, total: int) -> int | None:
        """Take what the recipe takes, and `most` at most."""
        return min(self.most, self.take or total, total)
