"""The contract every stage keeps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date  # pydantic reads it when it makes the validators
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cpu_pipeline.core.artifact import Artifact, canonical

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.core.errors import PipelineError
    from cpu_pipeline.core.figures import Cell, Note, Table
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.sources._base import Source
    from cpu_pipeline.tasks._base import Task

__all__ = [
    "ROLES",
    "Count",
    "Facts",
    "Figure",
    "Inputs",
    "Job",
    "Outcome",
    "Progress",
    "Role",
    "Stage",
    "Timer",
    "Verdict",
    "Waiver",
    "stored_facts",
]

Role = Literal["training", "calibration", "selection", "validation"]
"""What rows of a recipe are for. No two roles may share a row."""
ROLES: tuple[Role, ...] = get_args(Role)

Inputs = Mapping[str, Artifact]
"""Input name -> the sealed artifact wired to it."""

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A number of things, or of bytes."""

Host = Literal["none", "isa", "machine"]

Outcome = Literal["pass", "fail", "inconclusive"]
"""What a comparison shows: the bound is kept, it is not, or the rows are too few to tell."""

FindSource = Callable[[str, Mapping[str, object]], "Source"]
"""Make a source of its name and fields."""


class Progress(Protocol):
    """Takes how far a step is; may be called often."""

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None: ...


def _nobody(what: str, done: int = 0, total: int = 0) -> None:
    """Tell nobody."""


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite)]
"""A measured number; NaN and infinities become None, as JSON has neither."""


class Facts(BaseModel):
    """What a stage remembers of a run: counts, sizes in bytes, shares as fractions, timings in seconds.

    Each stage has its own class of these. Records hold it as JSON; a record that its class refuses was not written by
    the stage. A field that is added later needs a default, so that older records can still be read; a field that has
    its default is not stored, so that records stay as they were.
    """

    model_config = ConfigDict(
        # Validators are made when something is validated: a command uses few of the many classes.
        defer_build=True,
        frozen=True,
        allow_inf_nan=False,
        validate_by_alias=True,
        validate_by_name=True,
    )


def stored_facts(facts: Facts | Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as records hold them: JSON values, without the fields that have their default."""
    if isinstance(facts, Facts):
        return facts.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dict(facts)


class Timer(Protocol):
    """One artifact loaded in a fresh process of its own, to be timed."""

    @property
    def load_seconds(self) -> float:
        """Return the seconds from asking for the artifact to having it ready (cold start, imports included)."""

    def time(self, batches: Sequence[Arrays], rounds: int = 1) -> list[float]:
        """Run every batch `rounds` times.

        Args:
            batches: one mapping for each call: input name -> array, its first axis the batch, padded already.
            rounds: how often the whole sequence of batches is run.

        Returns:
            Seconds of each call, in order: `rounds * len(batches)` numbers.
        """

    def trace(self, batches: Sequence[Arrays]) -> tuple[list[float], list[int]]:
        """Run every batch once; return the seconds of each call, and the bytes that the process held after it."""

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
    advises: bool = False
    """Whether a check tells what is no error, too; a build does so itself."""
    thorough: bool = False
    """Whether `precheck` may take seconds and import what `run` does."""
    progress: Progress = _nobody
    """Tells who waits how far the step is: what it does, how much is done, and of how much (0: not known)."""


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a number with its bound."""

    check: str
    """What was compared, such as `f1`."""
    passed: bool
    """Whether the number keeps to its bound."""
    says: str
    """Message on one line: the number, its reference, the bound."""
    value: float | None = None
    """The number; None when there is none."""
    bound: float | None = None
    """The bound; None when there is none."""
    outcome: Outcome | None = None
    """What the rows show: `pass`, `fail`, or `inconclusive` where they are too few. By default that of `passed`. One
    that is inconclusive passes only where the recipe asks for that."""
    warning: bool = False
    """Whether it is a warning, though it passed."""
    waived: str = ""
    """Why it passes though the number does not keep to its bound: until when, and the reason; empty where it does."""

    def __post_init__(self) -> None:
        """Take the outcome of `passed` where none is given."""
        if self.outcome is None:
            object.__setattr__(self, "outcome", "pass" if self.passed else "fail")


class Waiver(BaseModel):
    """A failed check that passes until a date."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    until: date
    """The last day on which it passes (UTC), as YYYY-MM-DD."""
    reason: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """Why, for those who read the report."""

    def expired(self, today: date) -> bool:
        """Say whether the last day is over."""
        return today > self.until

    def __str__(self) -> str:
        """Write the last day and the reason."""
        return f"until {self.until.isoformat()}: {self.reason}"


class Stage(BaseModel, ABC):
    """One step of a build: reads sealed artifacts, writes one new directory.

    Fields are the options a recipe may set (the line under a field documents it everywhere); class variables are
    promises to the engine.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    facts_model: ClassVar[type[Facts] | None] = None
    """Class of what `run` returns. Without one it returns a plain mapping, which nothing checks when it is read."""
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
    judges_answers: ClassVar[bool] = True
    """False for a gate whose bounds say nothing of the candidate's answers, such as its speed: an output that such
    gates alone judge is unchecked."""
    remedies: ClassVar[tuple[str, ...]] = ()
    """Options to change when a gate fails because of this step, the first to try first; reports name them."""

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

    def misfits(self, task: Task, model: Path | None = None) -> list[str]:
        """Say what does not fit the recipe's task, each as `option: what is wrong`; then nothing is built.

        Args:
            task: the task.
            model: a directory with the config.json of the recipe's model, where it is known already.
        """
        return []

    def headless(self) -> bool:
        """Say whether it takes a model without the task's head, such as a base model that it gives a new one."""
        return False

    def identity(self, source: FindSource) -> object:
        """Return outside state that the options point at (such as a local folder's digest), for the key."""
        return None

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError | str]:
        """Tell what `run` or `judge` would refuse, and as sentences what they would warn of, before anything is built.

        `check` and `run` ask it of every step at once. It imports nothing heavy, and may raise an error as well.

        Args:
            inputs: of a stage that loads, its files (of a model, links to them); of others, what was loaded.
            out: a directory that is thrown away: where a stage that loads writes what it would give.
            job: the task and the rows that could be read; nothing can be loaded.
        """
        return ()

    def cautions(self, task: Task | None, model: Path | None, rows: int | None) -> Iterable[str]:
        """Tell what a build does though it cannot show much, each as a sentence; asked before anything is built.

        Args:
            task: the recipe's task.
            model: a directory with the config.json of the recipe's model, where it is known.
            rows: how many validation rows there are; None where that is not known.
        """
        return ()

    def columns_read(self, task: Task | None) -> Set[str]:
        """Name columns of the validation rows that are none of the task's own, and that `run` reads beside them."""
        return frozenset()

    def looks(self) -> int:
        """Say in how many parts the rows are predicted, after each of which a gate may have seen enough; 1 for all."""
        return 1

    @abstractmethod
    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts | Mapping[str, Any]:
        """Fill the empty directory `out`; return the facts worth remembering, as `facts_model` if there is one."""

    @classmethod
    def parse_facts(cls, stored: Mapping[str, Any]) -> Any:
        """Read the facts of a record, for the methods below.

        Args:
            stored: the JSON object that the record holds.

        Returns:
            An instance of `facts_model`, strictly checked; `stored` itself for a stage without one.

        Raises:
            ValueError: this stage cannot have written it (pydantic's ValidationError).
        """
        if cls.facts_model is None:
            return stored
        return cls.facts_model.model_validate_json(canonical(stored), strict=True)

    def trial(self, rows: int) -> Self:
        """Return the stage with the least work that shows whether it works, for data of at most `rows` rows."""
        return self

    # What follows reads facts: an instance of the stage's own `facts_model`. A stage narrows the type of `facts` to it.

    def judge(self, facts: Any) -> list[Verdict]:
        """Compare the facts with the options' bounds; never raise, never measure."""
        return []

    def notices(self, facts: Any) -> list[str]:
        """Warn of what was found and is no failure, each as a sentence; builds tell it every time."""
        return []

    def waiver(self) -> Waiver | None:
        """Return until when a failure of this check is waived, and why; None where it is not."""
        return None

    def successor(self) -> Self | None:
        """Give the check that compares a candidate with what is in service, as its reference; None when there is none.

        It is run besides this one by `refresh`, before a rebuilt artifact replaces the other.
        """
        return None

    def headline_metric(self, facts: Any) -> tuple[str, bool] | None:
        """Name the metric of `scores` that it judges, and say whether more of it is better; None without one."""
        return None

    def changes(self, facts: Any) -> list[str]:
        """Write what was measured of both sides, a line of plain text for each figure: reference → candidate."""
        return []

    def scores(self, facts: Any) -> Mapping[str, float]:
        """Return the candidate's metrics by name, as fractions, for its model card."""
        return {}

    def details(self, facts: Any) -> Sequence[Table | Note]:
        """Return what the report shows beside the verdicts: what was measured, and what a reader must know of it."""
        return []

    def losses(self, report: Path, task: Task | None) -> tuple[Sequence[str], int]:
        """Return the ids of the rows that the candidate answers worse, the worst first, and how many were compared.

        Args:
            report: the directory that `run` filled.
            task: the recipe's task.
        """
        return (), 0

    def headline(self, facts: Any) -> str:
        """Write what was measured of the candidate beside the reference, in a few words for a table."""
        return ""

    def cells(self, facts: Any, side: str) -> Sequence[Cell]:
        """Return figures about the input called `side`, for the report's table of all models."""
        return []
