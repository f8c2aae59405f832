"""What each command prints with `--json`: one type for each output. docs/reference/json is generated from these.

Commands import this module for type checking alone. Where an output is a dataclass of another package, its fields are
documented there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

from cpu_pipeline.engine import preview
from cpu_pipeline.engine.environments import Environment
from cpu_pipeline.engine.rebuild import Compared
from cpu_pipeline.engine.support import BackendSupport, Takes
from cpu_pipeline.refresh.outcome import Refreshed
from cpu_pipeline.refresh.status import RecipeStatus
from cpu_pipeline.release.bisect import Bisection
from cpu_pipeline.release.diff import Change
from cpu_pipeline.release.flips import Flip
from cpu_pipeline.release.sensitivity import SensitivityTable
from cpu_pipeline.release.verify import ForeignObject
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.store.contents import Stat, StoredRecord, StoreProblem
from cpu_pipeline.store.gc import Removal
from cpu_pipeline.store.runs.reader import RunEntry
from cpu_pipeline.store.sync import StepRef

T = TypeVar("T")


def extends(base: type) -> Callable[[type[T]], type[T]]:
    """Mark a typed dictionary that has the fields of a dataclass too: `{**vars(value), ...}`."""

    def mark(cls: type[T]) -> type[T]:
        cls.__extends__ = base  # type: ignore[attr-defined]  # read by the generator of the schemas
        return cls

    return mark


class ErrorOutput(TypedDict):
    """What a command prints when it ends with an error, instead of its result."""

    error: str
    """Name of the error's class."""
    exit_code: int
    """Exit code of the command."""
    says: str
    """The message, one problem a line."""


_From = TypedDict("_From", {"from": Annotated[dict[str, str], Field(description="Input name -> step id.")]})


class PlannedStep(_From):
    """One step of a plan."""

    id: str
    """Its id in the recipe; steps that the planner adds have a `.` or `:` in it."""
    use: str
    """Its stage."""
    gives: str
    """Format of its artifact."""
    data: dict[str, str]
    """Role of data -> id of the step that reads its rows."""
    state: preview.State
    """What a build would do with it; `depends` means that another step's result decides."""
    why: Sequence[str]
    """Why it would be built, or what it depends on."""


class PlanOutput(TypedDict):
    """What a build would do."""

    recipe: str
    """Name of the recipe."""
    outputs: Sequence[str]
    """Steps whose artifacts are published."""
    warnings: list[str]
    """Gates that cannot show much with the rows, each with its step and the reason."""
    steps: list[PlannedStep]
    """Every step, in the order of a build."""


class CheckedFile(TypedDict):
    """The result for one file."""

    file: str
    """Its path, as given."""
    exit_code: int
    """0 when it is valid."""
    says: list[str]
    """Its problems; empty when it is valid."""
    outside: list[str]
    """Paths that lead out of the recipe's folder, and whether they are allowed."""
    unread: list[str]
    """Models and rows that were not looked at, each with the reason."""
    warnings: list[str]
    """Gates that cannot show much with the rows, each with its step and the reason."""


class PublishedOutput(TypedDict):
    """One output of a build."""

    format: str
    """Format of the artifact."""
    digest: str
    """sha256 of its files."""
    size: int
    """Bytes of its files."""
    path: str | None
    """Its directory; null where the build has none."""


class BuiltStep(TypedDict):
    """One step of a build."""

    key: str
    """Key of its record in the store."""
    digest: str
    """sha256 of the files of its artifact."""
    facts: dict[str, Any]
    """What the stage measured and counted; see the facts of each stage in the reference."""


class RunOutput(TypedDict):
    """A recipe that was built and passed every gate."""

    recipe: str
    """Name of the recipe."""
    exit_code: Literal[0]
    """0."""
    path: str | None
    """Directory of the version, or of a build that is not for service; null for a recipe without outputs."""
    fresh: bool
    """Whether the directory was written now."""
    instead_of: str | None
    """The version that was in service before, when it is another one."""
    not_for_service: list[str]
    """Why it was not put into service (no gate, `--set`, `--limit`, `--until`, `--skip`, ...); empty when it was."""
    unchecked: dict[str, str]
    """Output whose answers no gate judged against the float model -> why it is put into service all the same."""
    waived: dict[str, str]
    """Gate that failed and was waived -> until when, and why."""
    set: list[str]
    """What `--set` changed of the recipe."""
    promoted_anyway: str | None
    """Why it was put into service though `--set` changed the recipe; null where it was not."""
    built: list[str]
    """Steps that were built; all others were cached."""
    outputs: dict[str, PublishedOutput]
    """Step id -> its artifact, for each output."""
    checks: dict[str, list[Verdict]]
    """Gate -> its verdicts."""
    steps: dict[str, BuiltStep]
    """Step id -> its key and result."""


class FailedRun(TypedDict):
    """A recipe that failed, when several were given."""

    recipe: str
    """Name of the recipe."""
    exit_code: int
    """Exit code of its error."""
    error: str
    """Name of the error's class."""
    says: str
    """The message."""
    report: str | None
    """Path of the report on the gates that failed; null for another error."""


class RebuildOutput(TypedDict):
    """How the build without the cache compares."""

    recipe: str
    """Name of the recipe."""
    steps: list[Compared]
    """Every step that is not a measurement."""


class ScoreOutput(TypedDict):
    """How good the predictions are."""

    task: str
    """The task."""
    metrics: dict[str, float | None]
    """Metric -> value as a fraction; null when it is not a finite number."""
    counts: dict[str, int]
    """What was counted, such as rows and missing predictions."""


class VerifyOutput(TypedDict):
    """A version whose files are as they were written."""

    folder: str
    """The directory, as given."""
    name: str
    """Name of the artifact."""
    version: str
    """The version."""
    files: int
    """How many files were compared."""
    missing_instruction_sets: Mapping[str, list[str]]
    """Output -> instruction sets that it needs and this CPU lacks."""


State = Literal["in service", "rolled back", "damaged", ""]


class VersionEntry(TypedDict):
    """One version of an artifact."""

    version: str
    """The version."""
    when: str | None
    """When it was last put into service: UTC, ISO 8601; null when that is not recorded."""
    by: str
    """The command that did it; empty when that is not recorded."""
    state: State
    """Whether it is in service, was taken out of it by a rollback, or is not what was written."""


class HistoryOutput(TypedDict):
    """What was run."""

    runs: list[RunEntry]
    """Runs, the newest first."""
    versions: NotRequired[list[VersionEntry]]
    """With NAME: its versions, the one put into service last first."""


_FromVersion = TypedDict(
    "_FromVersion", {"from": Annotated[str | None, Field(description="The version that was in service before.")]}
)


class RollbackOutput(_FromVersion):
    """A rollback that was done."""

    name: str
    """Name of the artifact."""
    to: str
    """The version that is in service now."""


class OptionEntry(TypedDict):
    """One option of a stage or a task."""

    option: str
    """Its name."""
    type: str
    """Its type, for people."""
    default: Any
    """Its default; `required` when it has none."""
    about: str
    """What it does."""


class CatalogEntry(TypedDict):
    """A stage or a task."""

    name: str
    """Its name in recipes."""
    about: str
    """What it does, in one line."""
    options: list[OptionEntry]
    """Its options."""


class TaskEntry(TypedDict):
    """A task."""

    name: str
    """Its name in recipes."""
    about: str
    """What it does, in one line."""
    aliases: list[str]
    """Other names that recipes may use."""
    columns: dict[str, bool]
    """Column of a row -> whether every row must have it."""
    metrics: dict[str, str]
    """Metric, the usual one first -> `higher` or `lower`: which is better."""
    options: list[OptionEntry]
    """Its options."""


class PipelineStep(TypedDict):
    """One step of a pipeline."""

    id: str
    """Its name."""
    use: str
    """Its stage."""
    options: dict[str, Any]
    """Its options."""


class PipelineEntry(TypedDict):
    """A pipeline."""

    name: str
    """Its name in recipes."""
    about: str
    """What comes out, in one sentence."""
    needs: list[str]
    """What a recipe must have for it: `data.validation`, `teacher`, ..."""
    steps: list[PipelineStep]
    """Its steps, in order."""


@extends(BackendSupport)
class BackendEntry(TypedDict):
    """One format and the backend that runs it."""

    works: bool
    """Whether it works on this machine."""
    takes: NotRequired[Takes]
    """With `--model`: whether it supports that model."""
    because: NotRequired[str]
    """With `--model`: why; empty when it supports the model."""


class DoctorOutput(TypedDict):
    """This machine and what works on it."""

    python: str
    """Version of Python."""
    system: str
    """Name and version of the operating system."""
    isa: list[str]
    """Architecture and instruction sets that change results."""
    cpu: str
    """Model of the processor."""
    cores: int
    """Cores that this process may use."""
    memory_gib: int
    """Memory that this process may use, in GiB."""
    int8: str
    """Whether int8 products are summed without overflow."""
    store: str
    """Directory of the store."""
    store_free: str
    """Free space of its file system, for people."""
    packages: dict[str, str]
    """Distribution -> installed version, or that it is missing."""
    environments: dict[str, str]
    """Separate environment -> whether it is ready."""
    stages: dict[str, list[str]]
    """Stage -> what it lacks; empty when it works."""
    backends: dict[str, list[str]]
    """Format -> what its backend lacks; empty when it works."""


class Machine(TypedDict):
    """What timings depend on."""

    isa: list[str]
    """Architecture and instruction sets that change results."""
    cpu: str
    """Model of the processor."""
    cores: int
    """Cores that the process may use."""
    memory_gib: int
    """Memory that the process may use, in GiB."""


class BenchModel(TypedDict):
    """The random model that was measured."""

    layers: int
    """Layers."""
    hidden: int
    """Size of a token's vector."""
    heads: int
    """Attention heads."""


class BenchWay(TypedDict):
    """One implementation on the batches of one share."""

    median: float
    """Median seconds of a batch."""
    times_faster: float
    """Median of `sdpa` divided by this median."""
    max_abs: float
    """Largest absolute difference from the outputs of `sdpa` on real tokens."""
    seconds: list[float]
    """Seconds of each round."""


class BenchShare(TypedDict):
    """The measurements for one share of real tokens."""

    share: int
    """Real tokens in percent, as requested."""
    lengths: list[int]
    """Tokens of each sequence."""
    real: float
    """Real tokens as a fraction of all tokens."""
    ways: dict[str, BenchWay]
    """Implementation -> its measurements."""


class PaddingOutput(TypedDict):
    """What padding costs."""

    machine: Machine
    """The machine."""
    threads: int
    """Threads of torch."""
    load: list[float]
    """Load average of one minute, before and after."""
    torch: str
    """Version of torch."""
    model: BenchModel
    """The model."""
    batch: int
    """Sequences in a batch."""
    length: int
    """Tokens that each sequence is padded to."""
    rounds: int
    """Rounds of measurements."""
    shares: list[BenchShare]
    """The measurements, a share each."""


@extends(Stat)
class StatOutput(TypedDict):
    """How much is in a store."""

    root: str
    """Directory of the store."""


class StoreVerifyOutput(TypedDict):
    """The result of reading a whole store."""

    problems: list[StoreProblem]
    """What is not as it was written."""
    not_for_this_cpu: list[ForeignObject]
    """Intact objects that this CPU cannot run."""


class GcOutput(TypedDict):
    """What was removed, or with `--dry-run` would be."""

    roots: int
    """Locks and versions whose steps are never removed."""
    removed: list[Removal]
    """What was removed."""


class SyncOutput(TypedDict):
    """What was copied between two stores."""

    remote: str
    """Address of the other store, without secrets."""
    bytes: int
    """Bytes that were copied."""
    moved: list[StepRef]
    """Steps that were copied."""
    present: list[StepRef]
    """Steps that the target had already."""
    missing: list[StepRef]
    """Steps that a recipe or its lock names and the origin does not have."""


@extends(Environment)
class EnvironmentEntry(TypedDict):
    """One separate environment."""

    ready: bool
    """Whether it is complete on this machine."""
    folder: str
    """Its directory."""


class EnvCheckOutput(TypedDict):
    """The result of checking an environment."""

    environment: str
    """Its name."""
    folder: str
    """Its directory."""
    problems: list[str]
    """What is wrong; empty when it is complete."""


@dataclass(frozen=True)
class Output:
    """The type of one output, and a note on when and how it is printed."""

    type: Any
    note: str = ""


RUNS = list[RunOutput | FailedRun]
OUTPUTS = {
    "run": Output(RunOutput | FailedRun | RUNS, "One object for one recipe, a list for several."),
    "plan": Output(PlanOutput),
    "refresh": Output(Refreshed, "One object a line for each recipe, as soon as it is done; also without `--json`."),
    "check": Output(list[CheckedFile]),
    "score": Output(ScoreOutput),
    "verify": Output(VerifyOutput),
    "bisect": Output(Bisection),
    "sensitivity": Output(SensitivityTable),
    "diff": Output(list[Change], "An empty list when nothing changed."),
    "flips": Output(list[Flip], "An empty list when no row flipped."),
    "history": Output(HistoryOutput),
    "status": Output(list[RecipeStatus]),
    "rollback": Output(RollbackOutput),
    "stages": Output(list[CatalogEntry]),
    "backends": Output(list[BackendEntry]),
    "tasks": Output(list[TaskEntry]),
    "pipelines": Output(list[PipelineEntry]),
    "doctor": Output(DoctorOutput),
    "bench padding": Output(PaddingOutput),
    "store list": Output(list[StoredRecord], "The most recently used first."),
    "store stat": Output(StatOutput),
    "store verify": Output(StoreVerifyOutput),
    "store gc": Output(GcOutput),
    "store push": Output(SyncOutput),
    "store pull": Output(SyncOutput),
    "env list": Output(list[EnvironmentEntry]),
    "env check": Output(EnvCheckOutput),
}
"""Command -> its output."""
OTHERS = {
    "run --rebuild": Output(RebuildOutput, "One object for each recipe."),
    "error": Output(ErrorOutput, "Any command that has `--json`, when it ends with an error."),
}
"""Outputs that are not of one command alone."""
