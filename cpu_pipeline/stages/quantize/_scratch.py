"""Figures that a step has measured so far, kept until it ends well: a run that was stopped resumes from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "measured.json"


class Notes:
    """Keeps JSON values by name in a file of `job.scratch`; without a directory, in memory alone."""

    def __init__(self, scratch: Path) -> None:
        """Read what an earlier run left; a damaged file counts as none."""
        self._path = scratch / FILE if scratch != Path() else None
        self._known: dict[str, Any] = {}
        if self._path is not None and self._path.is_file():
            try:
                read = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError:
                read = {}
            self._known = read if isinstance(read, dict) else {}

    def get(self, name: str) -> Any:
        """Return what was put under a name; None where nothing was."""
        return self._known.get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a value, at once: the file is replaced whole."""
        self._known[name] = value
        if self._path is None:
            return
        work = self._path.with_suffix(".new")
        work.write_text(json.dumps(self._known), encoding="utf-8")
        work.replace(self._path)
