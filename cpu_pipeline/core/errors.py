"""Every error that this package raises on purpose, with its exit code.

PipelineError
├── StageFailed           1  a stage raised, died, hung or broke its own contract
├── RecipeError           2  the command, the recipe or what it names is wrong
├── GateFailed            3  everything was built, and a check failed
├── BackendMissing        4  a package, backend, environment or instruction set is missing
├── Stale                 5  the build differs from what was to be reproduced
├── PartlyDone            6  `--keep-going` went on past a failure
├── Refused               7  damaged, edited or not allowed; nothing was opened or overwritten
├── TryAgain             75  network, disk or a lost worker: the same command may work later
└── Interrupted         130  somebody pressed Ctrl-C
    ├── Terminated      143  SIGTERM, as of a scheduler
    └── HungUp          129  SIGHUP: the terminal was closed
"""

from __future__ import annotations

from typing import Any

BUG = 70
"""Exit code of an error that this package does not raise on purpose."""


class PipelineError(Exception):
    """Base of every error this package raises on purpose; any other is a bug (exit code 70)."""

    exit_code = BUG


class StageFailed(PipelineError):
    """A stage raised, died, hung, or broke its own contract."""

    exit_code = 1


class RecipeError(PipelineError):
    """The command, the recipe, or something the recipe names is wrong."""

    exit_code = 2


class GateFailed(PipelineError):
    """Everything was built, but a check failed, so nothing is published."""

    exit_code = 3
    report: str | None = None
    """Path of the report on it, where one was written."""
    built: Any = None
    """The `BuildResult` with its verdicts, where everything was built."""


class BackendMissing(PipelineError):
    """A package, a backend, an environment or an instruction set is missing on this machine."""

    exit_code = 4


class Stale(PipelineError):
    """The build differs from what was to be reproduced."""

    exit_code = 5


class PartlyDone(PipelineError):
    """Some recipes or branches failed, and `--keep-going` built the rest."""

    exit_code = 6


class Refused(PipelineError):
    """Damaged, edited by hand, or not allowed by the recipe."""

    exit_code = 7


class TryAgain(PipelineError):
    """The network, the disk or a worker failed; the same command may work later."""

    exit_code = 75


class Interrupted(PipelineError):
    """Somebody pressed Ctrl-C."""

    exit_code = 130


class Terminated(Interrupted):
    """SIGTERM, as of a scheduler or of a container that is stopped."""

    exit_code = 143


class HungUp(Interrupted):
    """SIGHUP: the terminal was closed, or the connection to it was lost."""

    exit_code = 129


class Termination(KeyboardInterrupt):
    """Raised by SIGTERM and SIGHUP in the running code; everything that handles Ctrl-C handles it, too."""

    def __init__(self, number: int = 15) -> None:
        super().__init__()
        self.number = number
        """Number of the signal."""


def newer_format(path: object, found: int, reads: int, advice: str = "install that version") -> RecipeError:
    """Return the error for a file of a format that only a later version can read.

    Args:
        path: the file.
        found: the number of its format.
        reads: the highest number that this version reads.
        advice: what to do.
    """
    numbers = f"its format is {found}, this one reads {reads}"
    return RecipeError(f"{path}: written by a newer cpu-pipeline ({numbers}); {advice}")


def interruption(by: BaseException, message: str) -> Interrupted:
    """Return the error for a `KeyboardInterrupt` that came of Ctrl-C, SIGTERM or SIGHUP."""
    if not isinstance(by, Termination):
        return Interrupted(message)
    return HungUp(message) if by.number == 1 else Terminated(message)


def error_class(name: str) -> type[PipelineError]:
    """Return the error class of this name, with which errors come from workers; `StageFailed` for any other name."""
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, PipelineError):
        return found
    return StageFailed
