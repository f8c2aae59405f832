"""A model inside an installed Python package, known by its content."""

from __future__ import annotations

import importlib.util
from collections.abc import Set
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.sources import Source, Want
from cpu_pipeline.sources.folder import Folder


class Package(Source):
    """The directory of an installed Python package, as companies ship their models in wheels."""

    wants: ClassVar[Set[Want]] = frozenset({"model", "tokenizer"})
    online: ClassVar[bool] = False

    package: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the package. Its code is not run."""

    def identity(self, want: Want) -> object:
        """State exactly which bytes are meant: this is in the key, so it must follow from the content."""
        return self._folder().identity(want)

    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Copy the wanted files into the empty directory `out`; parse none of them.

        Raises:
            RecipeError: there is no such package, or no model in it.
            Refused: a link leads outside, or the only weights are pickled.
        """
        self._folder().fetch(want, out, allow)

    def _folder(self) -> Folder:
        # find_spec imports the parents of a dotted name; a plain name runs nothing.
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"package: {self.package} is not installed; install the wheel that has the model")
        return Folder(folder=Path(spec.submodule_search_locations[0]))
