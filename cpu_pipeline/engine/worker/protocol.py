"""The messages between a build and its worker processes: JSON, one message a line.

A request is `Run`, `Open`, `Reset`, `Answer` or `Time`; its reply is `Ran`, `Opened`, `ResetDone`, `Answered` or
`Timed`, or `Failed`.
Both ends run the same version of this package, so a message is never older than its reader.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from cpu_pipeline.core.artifact import Artifact, Facts
from cpu_pipeline.core.errors import PipelineError, StageFailed, error_class
from cpu_pipeline.engine.environments import Interpreter


@dataclass(frozen=True)
class TaskSpec:
    """A task as recipes name it: the worker makes it of this."""

    use: str
    options: Mapping[str, Any]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TaskSpec:
        """Read what `dataclasses.asdict` wrote."""
        return cls(fields["use"], fields["options"])


@dataclass(frozen=True)
class Reply:
    """What a worker answers; a subclass for each request."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return _fields(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields."""
        return cls(**fields)


@dataclass(frozen=True)
class Ran(Reply):
    """The reply to `Run`."""

    facts: Facts
    peak_memory: int
    """Bytes."""


@dataclass(frozen=True)
class Opened(Reply):
    """The reply to `Open`."""

    inputs: tuple[str, ...]
    """Names of the arrays that the artifact takes."""
    stateful: bool = False
    """True when it remembers earlier calls until `Reset`."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields."""
        return cls(tuple(fields["inputs"]), fields["stateful"])


@dataclass(frozen=True)
class ResetDone(Reply):
    """The reply to `Reset`."""


@dataclass(frozen=True)
class Answered(Reply):
    """The reply to `Answer`: the outputs are written."""


@dataclass(frozen=True)
class Timed(Reply):
    """The reply to `Time`."""

    seconds: list[float]
    """Seconds of each call, in order."""
    peak_memory: int
    """The most that the process has held so far, in bytes."""
    memory: list[int] = dataclasses.field(default_factory=list)
    """What the process held after each call, in bytes, where that was asked for."""


@dataclass(frozen=True)
class Advanced(Reply):
    """No reply, but news before it: how far a step is."""

    progress: str
    """What the step does, such as `rows` or `calibrating`."""
    done: int
    total: int
    """0 where it is not known."""


@dataclass(frozen=True)
class Failed(Reply):
    """The reply to any request that failed: the error's class, by name, and its message."""

    error: str
    message: str

    @classmethod
    def of(cls, error: PipelineError) -> Failed:
        """Describe an error."""
        return cls(type(error).__name__, str(error))

    def exception(self) -> PipelineError:
        """Return the error, to be raised by the parent."""
        return error_class(self.error)(self.message)


@dataclass(frozen=True)
class Request(ABC):
    """A request to a worker; `verb` names the subclass in JSON."""

    verb: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the verb and the fields as JSON values."""
        return {"do": self.verb, **_fields(self)}

    @classmethod
    @abstractmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb."""


@dataclass(frozen=True)
class Run(Request):
    """Run one step."""

    verb: ClassVar = "run"

    use: str
    """The stage, as recipes spell it."""
    options: Mapping[str, Any]
    """The options that were set, and no others: a stage may refuse an option that is of no use beside another."""
    inputs: Mapping[str, Artifact]
    """Input name -> artifact."""
    data: Mapping[str, Path]
    """Role -> its rows.jsonl."""
    out: Path
    """An empty directory, for what the step writes."""
    scratch: Path
    """A directory that outlives a failure."""
    log: Path
    """The file that takes what libraries print."""
    task: TaskSpec | None
    threads: int
    isa: tuple[str, ...]
    """Instruction sets to build for."""
    allow: tuple[str, ...]
    """What the recipe permits."""
    environment: str
    """The environment that the worker runs in."""
    interpreters: Mapping[str, Interpreter]
    """Environment -> its interpreter, of every environment that the step may open an artifact in."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb."""
        return cls(
            use=fields["use"],
            options=fields["options"],
            inputs={name: _artifact(value) for name, value in fields["inputs"].items()},
            data={role: Path(path) for role, path in fields["data"].items()},
            out=Path(fields["out"]),
            scratch=Path(fields["scratch"]),
            log=Path(fields["log"]),
            task=_task(fields["task"]),
            threads=fields["threads"],
            isa=tuple(fields["isa"]),
            allow=tuple(fields["allow"]),
            environment=fields["environment"],
            interpreters={
                name: Interpreter(value["python"], tuple(value["paths"]))
                for name, value in fields["interpreters"].items()
            },
        )


@dataclass(frozen=True)
class Open(Request):
    """Load an artifact with the backend of its format; `Answer` and `Time` use the one that was opened last."""

    verb: ClassVar = "open"

    artifact: Artifact
    task: TaskSpec | None
    threads: int
    log: Path | None
    """The file that takes what libraries print; None drops it."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb."""
        log = fields["log"]
        return cls(
            _artifact(fields["artifact"]), _task(fields["task"]), fields["threads"], None if log is None else Path(log)
        )


@dataclass(frozen=True)
class Answer(Request):
    """Run one batch: an NPZ file of input name -> array of shape (batch, ...), to one of output name -> array."""

    verb: ClassVar = "answer"

    inputs: Path
    outputs: Path

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb."""
        return cls(Path(fields["inputs"]), Path(fields["outputs"]))


@dataclass(frozen=True)
class Reset(Request):
    """Let the opened artifact forget its earlier calls; nothing happens where it has no state."""

    verb: ClassVar = "reset"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb: there are none."""
        return cls()


@dataclass(frozen=True)
class Time(Request):
    """Run every batch `rounds` times and measure each call."""

    verb: ClassVar = "time"

    batches: Path
    """An NPZ file: `<number of the batch>.<input name>` -> array of shape (batch, ...)."""
    rounds: int
    memory: bool = False
    """Whether to note what the process holds after each call."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the fields, without the verb."""
        return cls(Path(fields["batches"]), fields["rounds"], fields["memory"])


R = TypeVar("R", bound=Reply)
NEWS = b'{"progress": '
"""How a line begins that is no reply."""
REQUESTS: Mapping[str, type[Request]] = {request.verb: request for request in (Run, Open, Reset, Answer, Time)}


def write_request(request: Request) -> bytes:
    """Write a request as one line."""
    return json.dumps(request.to_json()).encode() + b"\n"


def read_request(line: bytes) -> Request:
    """Read a request.

    Raises:
        StageFailed: its verb is unknown, or its fields are not those of the verb.
    """
    fields = json.loads(line)
    verb = fields.pop("do", None)
    if verb not in REQUESTS:
        raise StageFailed(f"the worker does not know the request `{verb}`; it knows {', '.join(REQUESTS)}")
    try:
        return REQUESTS[verb].from_json(fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise StageFailed(f"the request `{verb}` does not have the fields that it should: {error!r}") from error


def write_news(news: Advanced) -> bytes:
    """Write how far a step is, as one line."""
    return json.dumps(news.to_json()).encode() + b"\n"


def write_reply(reply: Reply) -> bytes:
    """Write a reply as one line.

    Raises:
        ValueError: a number in it is NaN or infinite.
    """
    return json.dumps({"error": None, **reply.to_json()}, allow_nan=False).encode() + b"\n"


def read_news(line: bytes) -> Advanced | None:
    """Read a line of a worker that is no reply; None for a reply."""
    if not line.startswith(NEWS):
        return None
    fields = json.loads(line)
    return Advanced(fields["progress"], fields["done"], fields["total"])


def read_reply(line: bytes, expected: type[R]) -> R:
    """Read the reply to a request.

    Args:
        line: what the worker wrote.
        expected: the class of a reply that is no failure.

    Raises:
        PipelineError: the error that the worker describes.
    """
    fields = json.loads(line)
    if fields["error"] is not None:
        raise Failed.from_json(fields).exception()
    del fields["error"]
    return expected.from_json(fields)


def _fields(message: Request | Reply) -> dict[str, Any]:
    return {field.name: _plain(getattr(message, field.name)) for field in dataclasses.fields(message)}


def _plain(value: Any) -> Any:
    """Return a field as a JSON value."""
    match value:
        case Artifact():  # not what a subclass adds
            return {"format": value.format, "path": str(value.path), "digest": value.digest, "facts": dict(value.facts)}
        case TaskSpec() | Interpreter():
            return dataclasses.asdict(value)
        case Path():
            return str(value)
        case Mapping():
            return {name: _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value


def _artifact(fields: Mapping[str, Any]) -> Artifact:
    return Artifact(fields["format"], Path(fields["path"]), fields["digest"], fields["facts"])


def _task(fields: Mapping[str, Any] | None) -> TaskSpec | None:
    return None if fields is None else TaskSpec.from_json(fields)
