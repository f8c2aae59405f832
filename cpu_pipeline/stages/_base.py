"""The contract every stage keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict

from cpu_pipeline.core.artifact import Artifact, Facts

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.sources._base import Source
    from cpu_pipeline.tasks._base import Task

__all__ = ["Facts", "Inputs", "Job", "Stage", "Timer", "Verdict"]

Inputs = Mapping[str, Artifact]
"""Input name -> the sealed artifact wired to it."""

Host = Literal["none", "isa", "machine"]

FindSource = Callable[[str, Mapping[str, object]], "Source"]
"""Make a source of its name and fields."""


class Timer(Protocol):
    """One artifact loaded in a fresh process of its own, to be timed."""

    @property
    def load_seconds(self) -> float:
        """Return the seconds from asking for the artifact to having it ready (cold start, imports included)."""

    def time(self, batches: Sequence[Arrays], rounds: int = 1) -> list[float]:
        """Run every batch `rounds` times; return the seconds of each call, in order."""

    @property
    def peak_memory(self) -> int:
        """Return the most memory the process has held so far, in bytes."""


@dataclass(frozen=True)
class Job:
    """The part of the recipe a stage may see (only what it named in `reads`), and how it reaches the rest."""

    load: Callable[[Artifact], Session]
    """Open an artifact with the backend of its format, on `threads` threads, in this process."""
    timer: Callable[[Artifact], AbstractContextManager[Timer]]
    """Open an artifact in a fresh process, in its own environment, pinned to `threads` cores."""
    source: FindSource | None = None
    """Given to the stage that fetches, alone."""
    task: Task | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    """Role (calibration, validation, ...) -> its rows.jsonl."""
    scratch: Path = Path()
    """A directory of this key that outlives a failure; removed on success."""
    threads: int = 1
    isa: tuple[str, ...] = ()
    """Instruction sets to build for: the recipe's target, or this machine's (see `host.isa`)."""
    allow: Set[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What one comparison of a number with its bound said."""

    check: str
    """What was compared, such as `f1`."""
    passed: bool
    says: str
    """One line for people: the number, its reference, the bound."""
    value: float | None = None
    bound: float | None = None


class Stage(BaseModel, ABC):
    """One step of a build: reads sealed artifacts, writes one new directory.

    Fields are the options a recipe may set (the line under a field documents it everywhere); class variables are
    promises to the engine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    takes: ClassVar[Mapping[str, Set[str]]] = {}
    """Input name -> formats it accepts. The first input defaults to the previous model."""
    optional: ClassVar[Set[str]] = frozenset()
    """Inputs that may be left out."""
    through: ClassVar[Mapping[str, str]] = {}
    """Input name -> internal stage that stands between (`predict`), once per artifact, whoever asks."""
    reads: ClassVar[Set[str]] = frozenset()
    """Recipe parts `run` looks at: `task` (or `task.head`: its kind, not its options), `target`, `allow`,
    `data.calibration` (or `data.validation?` when it can do without)."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose installed versions shape the output."""
    alone: ClassVar[bool] = False
    """True when nothing else may run on the machine meanwhile: everything that measures time."""
    online: ClassVar[bool] = False
    """True for fetching alone: runs with the network and tokens, parses nothing."""
    internal: ClassVar[bool] = False
    """True for what the graph puts in by itself; a recipe cannot `use:` it."""
    quantizes: ClassVar[bool] = False
    """True when the model it gives is stored or computed in fewer bits than the one it takes, for model cards."""
    version: ClassVar[int] = 1
    """Raise by one whenever `run` starts writing something different."""
    reproducible: ClassVar[str] = ""
    """Empty when equal inputs give equal bytes on one machine, whatever its path, user, locale, time zone or run order;
    else why not, in one sentence for people."""
    unkeyed: ClassVar[Set[str]] = frozenset()
    """Options that `judge` uses and `run` does not."""

    @abstractmethod
    def gives(self) -> str:
        """Name the format `run` fills `out` with."""

    def asks(self) -> Set[str]:
        """Narrow `reads` to what `run` looks at under these options; no `?` where they can't do without it."""
        return self.reads

    def host(self) -> Host:
        """Say how much of this machine shapes the output: nothing, its instruction sets, or all of it."""
        return "none"

    def environment(self, backends: Mapping[str, str]) -> str:
        """Name the environment that runs it, given the one of each backend it loads (format -> environment).

        `job.load` and `job.timer` open each artifact in its backend's own environment, whichever this is.
        """
        return "default"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name the formats whose backends `run` loads, given each input's format."""
        return frozenset()

    def identity(self, source: FindSource) -> object:
        """Return outside state that the options point at (such as a local folder's digest), for the key."""
        return None

    @abstractmethod
    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        """Fill the empty directory `out`; return the facts worth remembering."""

    def judge(self, facts: Facts) -> list[Verdict]:
        """Compare the facts with the options' bounds; never raise, never measure."""
        return []

    def successor(self) -> Self | None:
        """Give the check that holds a candidate against what is in service, as its reference; None when there is none.

        It is run besides this one by `refresh`, before a rebuilt artifact takes the other's place.
        """
        return None

    def changes(self, facts: Facts) -> list[str]:
        """Say what was measured of both sides, a line for each figure: reference → candidate."""
        return []

    def scores(self, facts: Facts) -> Mapping[str, float]:
        """Give the candidate's metrics by name, as fractions, for its model card."""
        return {}

    def tells(self, facts: Facts) -> list[str]:
        """Write Markdown lines for the report: what was measured, where a table says more than the verdicts."""
        return []

    def cells(self, facts: Facts, side: str) -> Mapping[str, str]:
        """Give cells for the report's table of all models: column -> Markdown, about the input called `side`."""
        return {}
