"""What a first recipe will say, before it is text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    model: str
    """A folder of this machine, or owner/name of the Hub."""
    path: Path
    """The file that the recipe will be written to."""
    data: str | None = None
    """A file or folder of rows, or owner/name of the Hub; None for the first data set that the model's card names."""
    calibration: str | None = None
    """Another file of rows, for calibration."""
    task: str | None = None
    """The task; None to find it."""
    pipeline: str | None = None
    """The pipeline, by name; None to choose one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of the task -> its name in the rows, where it is not to be found."""


@dataclass
class Entry:
    """One line of a recipe: its value and what a reader should know of it."""

    value: Any
    about: str


@dataclass
class Draft:
    """The parts of a recipe."""

    name: str
    """The model, as people call it."""
    task: str
    model: Entry
    format: str = "hf"
    """Format of the model: hf, onnx or openvino."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the task."""
    metric: str = ""
    """What gates judge unless told otherwise."""
    data: dict[str, Entry] = field(default_factory=dict)
    """Role -> its rows."""
    changes: dict[str, Entry] = field(default_factory=dict)
    """Step -> options that differ from the pipeline's."""
    allow: list[str] = field(default_factory=list)
    """Risks that the recipe would have to allow."""
    notes: list[str] = field(default_factory=list)
    """What the user should look at."""
    outside: list[Path] = field(default_factory=list)
    """Paths outside the recipe's directory."""
