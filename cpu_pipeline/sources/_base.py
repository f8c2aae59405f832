"""The contract every source keeps: where a model, a tokenizer or data comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict

from cpu_pipeline.core.repo_files import Want


class Source(BaseModel, ABC):
    """A location that files come from. Fields are its keys in YAML; the first is named after its module."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    wants: ClassVar[Set[Want]]
    """What it can provide."""
    online: ClassVar[bool]
    """True when fetching needs the network."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that fetching needs; their versions are not part of any key, the content is."""
    version: ClassVar[int] = 1

    @classmethod
    def path_fields(cls) -> list[str]:
        """List the fields that are local paths: the planner refuses one that leads out of the recipe's directory."""
        return [name for name, field in cls.model_fields.items() if _has_path(field.annotation)]

    @abstractmethod
    def identity(self, want: Want) -> object:
        """Return a JSON value that identifies the bytes: repository, commit and endpoint, or a content digest."""

    @abstractmethod
    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Copy the files into the empty directory `out`, by name, parsing nothing.

        Raises:
            RecipeError: it does not exist, or may not be read.
            TryAgain: the network failed, or it is off and something is missing.
            Refused: a file name leads outside, or there are only pickled weights and `allow` has no `pickle`.
        """

    def local_files(self, want: Want, allow: Set[str]) -> Mapping[str, Path]:
        """List what is on this machine of what `fetch` would copy: name -> path. Downloads nothing.

        A source that is not `online` lists everything.

        Raises:
            RecipeError, Refused: as `fetch`.
        """
        return {}


def _has_path(annotation: Any) -> bool:
    return annotation is Path or any(_has_path(part) for part in get_args(annotation))
