"""The contract between the build loop and what runs its steps."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType, Protocol

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError
from cpu_pipeline.engine.worker.protocol import Ran, TaskSpec

Handle = NewType("Handle", int)
"""A started step. An executor never gives the same number twice."""


@dataclass(frozen=True)
class StepRequest:
    """One step to run. Files cross as paths of the build's machine; nothing in it refers to the store."""

    use: str
    """The stage, as recipes spell it."""
    options: Mapping[str, Any]
    """The options that were set, as JSON values."""
    inputs: Mapping[str, Artifact]
    """Input name -> artifact: a sealed directory, with the digest of its content. Only read."""
    data: Mapping[str, Path]
    """Role -> its rows.jsonl. Only read."""
    out: Path
    """An empty directory. The step's output is what it holds when the step has ended."""
    scratch: Path
    """A directory of this step that outlives a failure; a later try of the same step goes on from it."""
    log: Path
    """The file for what the step and its libraries print. The executor empties it first."""
    task: TaskSpec | None
    threads: int
    """How many threads the step computes with: outputs may depend on it, so it is not the executor's choice."""
    isa: tuple[str, ...]
    """Instruction sets to build for."""
    allow: tuple[str, ...]
    """What the recipe permits."""
    environment: str
    """The environment that the stage runs in."""
    environments: Set[str]
    """Every environment that the step needs: its own, and those of the backends it loads."""
    online: bool
    """Whether the step may use the network and sees the Hub's token. All others run offline."""
    timeout: float | None
    """Seconds after which the step is stopped; None for no limit."""


@dataclass(frozen=True)
class StepOutcome:
    """How a started step ended."""

    handle: Handle
    seconds: float
    """From start to end."""
    result: Ran | PipelineError
    """The facts and the peak memory, or why the step failed. The message does not name the step: the build does."""


@dataclass(frozen=True)
class StepAdvance:
    """How far a step is that runs."""

    handle: Handle
    what: str
    """What it does, such as `rows` or `calibrating`."""
    done: int
    total: int
    """0 where it is not known."""


class Executor(Protocol):
    """Runs steps, several at once. Called from the main thread of one build.

    The build decides what runs when, takes the locks and stores the outputs. An executor runs what it is given,
    at once, and guarantees:

    - Each started step ends in exactly one outcome of `poll`, or by `stop` or `close`. A lost process or machine is an
      outcome too: `StageFailed`, or `TryAgain` where the same step may succeed the next time.
    - With the outcome of a success, `out` holds everything that the step wrote, and nobody writes to it any more. An
      executor on another machine copies inputs to it and outputs back; it checks inputs by their digests.
    - The facts of a success are JSON values. The build checks them against the stage, and stores `out`.
    - The output is the same wherever the step runs: the same version of this package, the environments with exactly
      their pins, the variables of `worker.sandbox`, and `threads` threads. A worker that differs is refused.
    - The key of a step names the host where the stage says so (`Stage.host`): `isa` may run only on a CPU with the
      instruction sets of `core.host.isa()` of the build, `machine` only on the build's machine. The build ensures that
      nothing else runs on its machine while a step measures.
    - A step sees no secret of the user and no network, unless it is `online`.
    - No step outlives the build, however the build ends.
    """

    def start(self, request: StepRequest) -> Handle:
        """Start a step, without waiting for it.

        Raises:
            BackendMissing: an environment that the step needs is not installed.
            TryAgain: no worker can be started now.
        """

    def poll(self, seconds: float) -> list[StepOutcome | StepAdvance]:
        """Wait at most `seconds` for a step to end or to advance; return the steps that ended, each once, and news."""

    def stop(self, handle: Handle, grace: float) -> None:
        """End a step, with every process that it started. It has no outcome.

        Args:
            handle: the step; one that ended is left alone.
            grace: seconds between the request to end and the end by force; 0 for force at once.
        """

    def close(self, grace: float = 0.0) -> None:
        """Stop every step and give back every process. May be called again."""
